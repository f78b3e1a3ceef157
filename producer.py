"""Send sensor readings to the topic: a simulated fleet, or a recording.

Writes   the Kafka topic, keyed by location/sensor_type; the injected truth in a header
Promises every reading counted as delivered is in the topic, once and in order (service/sending.py);
         an outage of the broker is waited out. Needs no database: heartbeats go to one that answers
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import stat
import sys
import zlib
from io import BufferedReader
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

from config import ProducerSettings, load_settings_or_exit
from pipeline.encoding import Sensor
from service.cli import service_parser
from service.lifecycle import UserError
from service.numbers import number
from service.pipe import Patient, Pipe
from service.runner import run_service, running
from service.sending import Feed, Target, send_feed
from simulator.feeds import MAX_SORTED, ReplayFeed, SimulatedFeed
from simulator.files import NoRecording, open_text
from simulator.fleet import MAX_ANOMALY_RATE, SensorSimulator
from simulator.layout import Wanted
from simulator.replay import BrokenLine, Recording

log = logging.getLogger(__name__)

SERVICE = "producer"
FLEET_DEFAULTS = {"rate": None, "sensors": 25, "anomaly_rate": 0.05, "seed": None}
RECORDING_DEFAULTS = {
    "speed": 1.0,
    "keep_timestamps": False,
    "sensor_id": None,
    "sensor_type": "",
    "location": "unknown",
    "unit": "",
    "time_column": "",
    "value_columns": "",
    "sensor_column": "",
    "type_column": "",
    "location_column": "",
    "timezone": None,
    "delimiter": "",
    "decimal": "",
}


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
        "a table as text: times, and a value a line or a column a sensor; options for what cannot"
        " be guessed",
    )
    recording.add_argument(
        "--replay", type=Path, metavar="FILE", help="send this recording, gzip or not; - = stdin"
    )
    for group, name, kind, metavar, meaning in (
        (fleet, "rate", number(float, 0, 1e7), "R", "readings/s, 0 = full speed [PRODUCER_RATE]"),
        (fleet, "sensors", number(int, 1, 1_000_000), "N", "size of the fleet [25]"),
        (fleet, "anomaly-rate", number(float, 0, MAX_ANOMALY_RATE), "P", "share of them [0.05]"),
        (fleet, "seed", number(int, 0, 2**63 - 1), "N", "of all that is random [PRODUCER_SEED]"),
        (recording, "speed", number(float, 0), "X", "divide the gaps by it, 0 = no waiting [1]"),
        (recording, "sensor-id", str, "ID", "where not recorded [the file's name]"),
        (recording, "sensor-type", str, "TYPE", "where not recorded [the column's name, unknown]"),
        (recording, "location", str, "PLACE", "where not recorded [unknown]"),
        (recording, "unit", str, "UNIT", "where not recorded [none]"),
        (recording, "time-column", str, "NAME", "of times; DATE,TIME where in two [by its name]"),
        (recording, "value-columns", str, "A,B", "of values, a sensor each [by name, or numeric]"),
        (recording, "sensor-column", str, "NAME", "of sensor_id [by its name]"),
        (recording, "type-column", str, "NAME", "of sensor_type [by its name]"),
        (recording, "location-column", str, "NAME", "of location [by its name]"),
        (recording, "timezone", _zone, "ZONE", "of times without an offset [UTC]"),
        (recording, "delimiter", _delimiter, "C", "between columns; tab [guessed]"),
        (recording, "decimal", _decimal, "C", "before decimals, . or , [guessed]"),
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


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as problem:
        raise argparse.ArgumentTypeError(
            f"{name!r} is no time zone like Europe/Berlin"
        ) from problem


def _delimiter(text: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(delimiter) != 1 or delimiter in '"\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, or tab")
    return delimiter


def _decimal(text: str) -> str:
    if text not in (".", ","):
        raise argparse.ArgumentTypeError(f"{text!r} is neither . nor ,")
    return text


def open_recording(args: argparse.Namespace) -> Recording:
    """Open the file to replay.

    Raises
    ------
    UserError
        When it cannot be a recording.
    """
    path: Path = args.replay
    is_standard_input = str(path) == "-"
    name = "stdin" if is_standard_input else Path(path.name.removesuffix(".gz")).stem[:100]
    default = Sensor(args.sensor_id or name, args.sensor_type, args.location, args.unit)
    wanted = Wanted(
        *(_names(args.time_column), _names(args.value_columns)),
        *(args.sensor_column, args.type_column, args.location_column),
        *(args.delimiter, args.decimal),
    )
    try:
        stream = cast(BufferedReader, sys.stdin.buffer) if is_standard_input else path.open("rb")
        is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        text = open_text(stream if is_file else Pipe(stream))
        return Recording(text, default, wanted, args.timezone, iter if is_file else Patient)
    except OSError as problem:
        raise UserError(f"--replay {path}: {problem.strerror or problem}") from problem
    except (NoRecording, EOFError, zlib.error) as problem:
        raise UserError(f"--replay {path}: {problem}") from problem


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def log_broken(line: BrokenLine) -> None:
    """Say which line of a recording is skipped and why."""
    log.warning("line_skipped line=%d reason=%s", line.line_number, line.reason)


def make_feed(
    recording: Recording | None, settings: ProducerSettings, args: argparse.Namespace
) -> Feed:
    """Return the recording, or else a fleet, as the command line says, or else the settings."""
    if recording:
        layout = recording.layout
        log.info(
            "recording times=%s values=%s header_line=%d delimiter=%r decimal=%s day_first=%s",
            ",".join(layout.names[i] for i in layout.time),
            ",".join(layout.names[i] for i in layout.values)[:200],
            *(layout.header_line, layout.delimiter, layout.decimal, layout.day_first),
        )
        return ReplayFeed(recording, args.speed, args.keep_timestamps, log_broken)
    rate = settings.rate if args.rate is None else args.rate
    seed = settings.seed if args.seed is None else args.seed
    return SimulatedFeed(SensorSimulator(seed, args.sensors, args.anomaly_rate), rate)


def main() -> None:
    """Run until stopped, or until there is nothing more to send."""
    args = parse_args()
    settings = load_settings_or_exit()
    recording = open_recording(args) if args.replay else None
    target = Target(settings.kafka, args.max_messages, args.duration, settings.producer.compression)
    with running(SERVICE, settings.service) as process:
        feed = make_feed(recording, settings.producer, args)
        outcome = send_feed(feed, target, process)
    if isinstance(feed, ReplayFeed) and not feed.is_sorted:
        log.warning("recording_unsorted; only portions are sorted, of %d at most", MAX_SORTED)
    is_empty = bool(recording) and feed.is_over and not outcome.sent
    log.log(
        logging.ERROR if outcome.failed or is_empty else logging.INFO,
        "finished sent=%d delivered=%d failed=%d skipped_lines=%d%s",
        *(outcome.sent, outcome.delivered, outcome.failed, feed.skipped.total()),
        "".join(f" {code}={count}" for code, count in feed.skipped.most_common()),
    )
    if is_empty:
        raise UserError(f"--replay {args.replay}: nothing in it could be sent")
    if outcome.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_service(main)
