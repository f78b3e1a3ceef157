"""Send sensor readings to the topic: a simulated fleet, or a recording.

Writes   the Kafka topic, keyed by location/sensor_type; the injected truth in a header
Promises every reading counted as delivered is in the topic, once and in order (service/sending.py);
         an outage of the broker is waited out. Needs no database: heartbeats go to one that answers
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

from config import ProducerSettings, load_settings_or_exit
from pipeline.encoding import Sensor
from service.cli import service_parser
from service.lifecycle import UserError
from service.numbers import number
from service.runner import run_service, running
from service.sending import Feed, Target, send_feed
from simulator.feeds import ReplayFeed, SimulatedFeed
from simulator.fleet import MAX_ANOMALY_RATE, SensorSimulator
from simulator.replay import BrokenLine, NoRecording, Recording

log = logging.getLogger(__name__)

SERVICE = "producer"
FLEET_DEFAULTS = {"rate": None, "sensors": 25, "anomaly_rate": 0.05, "seed": None}
RECORDING_DEFAULTS = {
    "speed": 1.0,
    "keep_timestamps": False,
    "sensor_id": None,
    "sensor_type": "unknown",
    "location": "unknown",
    "unit": "",
}
# Enough of a file to tell text from something else, bytes.
PROBE_BYTES = 65_536


def parse_args() -> argparse.Namespace:
    """Return the command line, checked; None is where the settings decide."""
    parser = service_parser(__doc__)
    seconds, count = number(float, 0), number(int, 0)
    parser.add_argument("--duration", type=seconds, metavar="S", help="stop after S seconds")
    parser.add_argument("--max-messages", type=count, metavar="N", help="stop after N readings")
    parser.set_defaults(duration=math.inf, max_messages=math.inf)
    fleet = parser.add_argument_group("simulated fleet")
    recording = parser.add_argument_group(
        "recording",
        "a CSV file with the columns timestamp and value, and options for what it lacks",
    )
    recording.add_argument("--replay", type=Path, metavar="FILE.csv", help="send this recording")
    for group, name, kind, metavar, meaning in (
        (fleet, "rate", number(float, 0, 1e7), "R", "readings/s, 0 = full speed [PRODUCER_RATE]"),
        (fleet, "sensors", number(int, 1, 1_000_000), "N", "size of the fleet [25]"),
        (fleet, "anomaly-rate", number(float, 0, MAX_ANOMALY_RATE), "P", "share of them [0.05]"),
        (fleet, "seed", number(int, 0, 2**63 - 1), "N", "of all that is random [PRODUCER_SEED]"),
        (recording, "speed", number(float, 0), "X", "divide the gaps by it, 0 = no waiting [1]"),
        (recording, "sensor-id", str, "ID", "where not recorded [the file's name]"),
        (recording, "sensor-type", str, "TYPE", "where not recorded [unknown]"),
        (recording, "location", str, "PLACE", "where not recorded [unknown]"),
        (recording, "unit", str, "UNIT", "where not recorded [none]"),
    ):
        group.add_argument(
            f"--{name}", type=kind, metavar=metavar, help=meaning, default=argparse.SUPPRESS
        )
    recording.add_argument(
        "--keep-timestamps",
        action="store_true",
        default=argparse.SUPPRESS,
        help="send the recorded times, not the times of sending",
    )
    given = vars(parser.parse_args())
    wrong = RECORDING_DEFAULTS if given["replay"] is None else FLEET_DEFAULTS
    for name in given.keys() & wrong.keys():
        option = f"--{name.replace('_', '-')}"
        parser.error(f"{option} goes {'only' if given['replay'] is None else 'not'} with --replay")
    return argparse.Namespace(**{**FLEET_DEFAULTS, **RECORDING_DEFAULTS, **given})


def open_recording(args: argparse.Namespace) -> Recording:
    """Open the file to replay.

    Raises
    ------
    UserError
        When it cannot be a recording.
    """
    path: Path = args.replay
    default = Sensor(args.sensor_id or path.stem[:100], args.sensor_type, args.location, args.unit)
    try:
        with path.open("rb") as probe:
            probe.read(PROBE_BYTES).rpartition(b"\n")[0].decode()
        # A wrong byte further on costs its line only.
        return Recording(path.open(encoding="utf-8-sig", errors="surrogateescape"), default)
    except OSError as problem:
        raise UserError(f"--replay {path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        byte = f"byte {problem.object[problem.start]:#04x} at {problem.start}"
        raise UserError(f"--replay {path}: not UTF-8 ({byte})") from problem
    except NoRecording as problem:
        raise UserError(f"--replay {path}: {problem}") from problem


def log_broken(line: BrokenLine) -> None:
    """Say which line of a recording is skipped and why."""
    log.warning("line_skipped line=%d reason=%s", line.line_number, line.reason)


def make_feed(
    recording: Recording | None, settings: ProducerSettings, args: argparse.Namespace
) -> Feed:
    """Return the recording, or else a fleet, as the command line says, or else the settings."""
    if recording:
        return ReplayFeed(recording, args.speed, args.keep_timestamps, log_broken)
    rate = settings.rate if args.rate is None else args.rate
    seed = settings.seed if args.seed is None else args.seed
    return SimulatedFeed(SensorSimulator(seed, args.sensors, args.anomaly_rate), rate)


def main() -> None:
    """Run until stopped, or until there is nothing more to send."""
    args = parse_args()
    settings = load_settings_or_exit()
    recording = open_recording(args) if args.replay else None
    target = Target(settings.kafka, args.max_messages, args.duration)
    with running(SERVICE, settings.service) as process:
        feed = make_feed(recording, settings.producer, args)
        outcome = send_feed(feed, target, process)
    log.log(
        logging.ERROR if outcome.failed else logging.INFO,
        "finished sent=%d delivered=%d failed=%d skipped_lines=%d",
        *(outcome.sent, outcome.delivered, outcome.failed, feed.skipped),
    )
    if outcome.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_service(main)
