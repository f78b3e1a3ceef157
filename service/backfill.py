"""Late readings: count them in the windows they missed, which were final without them.

python -m service.backfill
python -m service.backfill --from 2026-01-31T09:00 --to 2026-01-31T12:00

Recomputes those windows from sensor_readings, exactly, makes those that had no other readings,
brings roll-ups and correlations up to date and takes the readings out of late_readings. It may run
beside the services, be killed, and be run again.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter

from config import load_settings_or_exit
from db import backfill, kept_settings
from db.backfill import Figures, Page, Which
from db.connection import Database, DatabaseUnavailable, StaleCheckpoint, UnsuitableDatabase
from db.versions import prepare_database
from pipeline.windows import WindowKey
from service.cli import service_parser
from service.commands import utc_time
from service.correlating import BackgroundCorrelator

log = logging.getLogger(__name__)

# Late readings are left where retention has taken others of their window, where readings of it are
# counted and not stored, and where it is not final yet or the consumer has not come so far.
COUNTED = (
    *("windows_revised", "windows_made", "readings"),
    *("left_to_retention", "left_incomplete", "left_for_later"),
)


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    for name, attribute, which in (("from", "since", "at or after"), ("to", "until", "before")):
        help_text = f"only windows that begin {which} this time, UTC, ISO 8601"
        parser.add_argument(
            f"--{name}", dest=attribute, type=utc_time, metavar="TIME", help=help_text
        )
    return parser.parse_args()


def run(database: Database, which: Which) -> Counter[str]:
    """Fold all in that can be; count what was done and what was left."""
    counts: Counter[str] = Counter()
    after: WindowKey | None = None
    while True:
        with database.transaction() as tx:
            page = backfill.choose(tx, which, after)
        if not page.windows:
            break
        try:
            counts += _fold(database, page)
        except StaleCheckpoint:
            continue  # e.g. another run has been here
        after = page.windows[-1].key
    with database.transaction() as tx:
        counts["left_to_retention"], waiting = backfill.left(tx, which)
    counts["left_for_later"] = max(0, waiting - counts["left_incomplete"])
    return counts


def _fold(database: Database, page: Page) -> Counter[str]:
    found: dict[WindowKey, Figures] = {}
    for start_us in sorted({window.key.start_us for window in page.windows}):
        with database.transaction() as tx:
            found |= backfill.figures(tx, page, start_us)
    counts: Counter[str] = Counter()
    whole = {}
    for key, late, counted in page.windows:
        # Where readings that were counted are not stored, the row knows better.
        if key not in found or found[key].readings < (counted or 0) + late:
            counts["left_incomplete"] += late
        else:
            whole[key] = found[key]
            counts["windows_made" if counted is None else "windows_revised"] += 1
    if whole:
        with database.transaction() as tx:
            counts["readings"] = backfill.fold(tx, page, whole)
    return counts


def main() -> None:
    """Fold in what is late, once."""
    args = parse_args()
    settings = load_settings_or_exit()
    url, windows = settings.service.database_url, settings.windows
    logging.basicConfig(level=settings.service.log_level, format="%(message)s")
    try:
        with Database(url, "backfill") as database:
            prepare_database(database)
            with database.transaction() as tx:
                kept_settings.check(tx, "WINDOW_SECONDS", windows.window_seconds)
            counts = run(database, Which(args.since, args.until, windows.window_us))
    except (DatabaseUnavailable, UnsuitableDatabase) as problem:
        raise SystemExit(f"error: {' '.join(str(problem).split())}") from None
    log.info(
        "%s%s",
        "" if counts["readings"] else "nothing to do: ",
        " ".join(f"{name}={counts[name]}" for name in COUNTED),
    )
    with BackgroundCorrelator(url, windows.correlation_windows, is_drained=True):
        pass  # what is due is worked off


if __name__ == "__main__":
    main()
