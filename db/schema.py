"""Look after the tables as their owner: once a day, where the services' role may not make any.

python -m db.schema

Applies the schema, makes the partitions of the days to come, and lets go what RETENTION_DAYS and
AGGREGATE_RETENTION_DAYS say.
"""

from __future__ import annotations

import argparse
import logging

from config import load_settings_or_exit
from db import partitions, retention
from db.connection import Database, DatabaseUnavailable
from db.versions import SchemaMismatch, prepare_database


def main() -> None:
    """Apply the schema and look after the days, once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--new-identity",
        action="store_true",
        help="for a copy beside the original: read the topic in consumer groups of its own",
    )
    args = parser.parse_args()
    settings = load_settings_or_exit()
    logging.basicConfig(level=settings.service.log_level, format="%(levelname)s %(message)s")
    try:
        with Database(settings.service.database_url, "schema") as database:
            prepare_database(database)
            with database.transaction() as tx:
                today = partitions.today_of(tx)
                if args.new_identity:
                    tx.execute("UPDATE database_identity SET identity = DEFAULT")
            while not retention.let_go(database, settings.retention, today):
                pass
    except (DatabaseUnavailable, SchemaMismatch) as problem:
        raise SystemExit(f"error: {' '.join(str(problem).split())}") from None


if __name__ == "__main__":
    main()
