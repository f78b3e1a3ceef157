"""Messages that were no readings: list them by reason, or send them to the topic again.

python -m service.dead_letters
python -m service.dead_letters --send --reason wrong_type --since 2026-01-31

Sends what has become a reading since: by a newer version that takes it, or because its time is no
longer in the future. Each is sent once, with a header that names its dead letter, whatever ends
this command and whenever: the next run finds out what has arrived before it goes on.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from broker.resending import Letter, Resender
from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from config import load_settings_or_exit
from db import dead_letters
from db.connection import Database, DatabaseUnavailable
from db.dead_letters import Kept, Which
from db.offsets import register_sources
from db.versions import SchemaMismatch, prepare_database
from pipeline.decoding import decode_batch
from pipeline.encoding import reading_key
from service.cli import service_parser
from service.commands import utc_time
from service.lifecycle import UserError

log = logging.getLogger(__name__)

# Sent in one transaction, and looked at in one statement.
PORTION = 500
# A dead letter, and the key of the reading that it is by now.
Keyed = tuple[Kept, bytes | None]


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    parser.add_argument("--send", action="store_true", help="send them again [list them]")
    parser.add_argument("--reason", metavar="CODE", help="only those with this reason_code")
    for name, which in (("since", "at or after"), ("until", "before")):
        help_text = f"only those rejected {which} this time, UTC, ISO 8601"
        parser.add_argument(f"--{name}", type=utc_time, metavar="TIME", help=help_text)
    return parser.parse_args()


def show(database: Database, which: Which) -> None:
    """Log a line a reason, with an example."""
    with database.transaction() as tx:
        reasons = dead_letters.by_reason(tx, which)
    if not reasons:
        log.info("no dead letters")
    for each in reasons:
        log.info(
            "reason_code=%s kept=%d sent_again=%d cut=%d first=%s last=%s\n    %s\n    %s",
            *(each.code, each.kept, each.sent, each.cut, each.first, each.last),
            *(each.reason, each.payload.decode("utf-8", "replace") if each.payload else "(none)"),
        )


def send(database: Database, resender: Resender, sources: dict[int, int], which: Which) -> None:
    """Finish what an earlier run began, then send what is chosen and can be sent."""
    settled = _settle(database, resender, sources)
    counts: Counter[str] = Counter()
    after = 0
    while True:
        with database.transaction() as tx:
            kept = dead_letters.unsent(tx, which, after, PORTION)
        if not kept:
            break
        after = kept[-1].id
        good = _readings(kept, counts)
        if good:
            ends = {sources[p]: end for p, end in resender.end_offsets().items() if p in sources}
            with database.transaction() as tx:
                dead_letters.prepare(tx, [each.id for each, _ in good], ends)
            _send(database, resender, good)
            counts["sent"] += len(good)
    log.info(
        "sent_again=%d finished_of_an_earlier_run=%d still_no_reading=%d cut=%d",
        *(counts["sent"], settled, counts["bad"], counts["cut"]),
    )


def _settle(database: Database, resender: Resender, sources: dict[int, int]) -> int:
    """Send what an earlier run meant to send and what has not arrived; return how many that was."""
    with database.transaction() as tx:
        pending, ends = dead_letters.pending(tx)
    if not pending:
        return 0
    partition_of = {source: partition for partition, source in sources.items()}
    try:
        arrived = resender.arrived({partition_of[source]: end for source, end in ends.items()})
    except LookupError as problem:
        raise UserError(
            f"{len(pending)} dead letters may have been sent again or not: the topic has lost what"
            f" would tell ({problem}). Look for them in sensor_readings; those to be sent get"
            " sending_since = NULL in the table dead_letters, the others a sent_again_at"
        ) from problem
    with database.transaction() as tx:
        dead_letters.sent(tx, [each.id for each in pending if each.name in arrived])
    rest = _keyed([each for each in pending if each.name not in arrived], -1)
    for begin in range(0, len(rest), PORTION):
        _send(database, resender, rest[begin : begin + PORTION])
    return len(rest)


def _send(database: Database, resender: Resender, keyed: Sequence[Keyed]) -> None:
    resender.send([Letter(each.name, key, each.payload or b"") for each, key in keyed])
    with database.transaction() as tx:
        dead_letters.sent(tx, [each.id for each, _ in keyed])


def _keyed(kept: Sequence[Kept], now_ms: int) -> list[Keyed]:
    """Return each with its key as a reading, None where it is none; -1 = at any time."""
    readings, _ = decode_batch([each.payload for each in kept], np.full(len(kept), now_ms))
    columns = readings.location.to_pylist(), readings.sensor_type.to_pylist()
    keys = dict(zip(readings.position.tolist(), map(reading_key, *columns), strict=True))
    return [(each, keys.get(position)) for position, each in enumerate(kept)]


def _readings(kept: Sequence[Kept], counts: Counter[str]) -> list[Keyed]:
    """Return those that would be a reading now, and count the others."""
    whole = [each for each in kept if not each.is_cut]
    counts["cut"] += len(kept) - len(whole)
    good = [each for each in _keyed(whole, time.time_ns() // 1_000_000) if each[1]]
    counts["bad"] += len(whole) - len(good)
    return good


def main() -> None:
    """List or send, once."""
    args = parse_args()
    settings = load_settings_or_exit()
    logging.basicConfig(level=settings.service.log_level, format="%(message)s")
    kafka = settings.kafka
    which = Which(kafka.topic, args.reason, args.since, args.until)
    try:
        with Database(settings.service.database_url, "dead_letters") as database:
            identity = prepare_database(database)
            if not args.send:
                show(database, which)
                return
            admin = admin_client(kafka.client)
            topic = ensure_topic(admin, kafka.topic, kafka.partitions)
            with database.transaction() as tx:
                sources = register_sources(
                    tx, topic.cluster_id, topic.topic_id, topic.name, topic.partitions
                )
            resender = Resender(kafka.client, admin, topic, f"dead_letters-{identity}")
            send(database, resender, sources, which)
    except (DatabaseUnavailable, SchemaMismatch, BrokerUnavailable, UserError) as problem:
        raise SystemExit(f"error: {' '.join(str(problem).split())}") from None


if __name__ == "__main__":
    main()
