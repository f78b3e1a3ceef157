"""A partition a day of the two large tables, made ahead.

A partition comes by ATTACH, so that no writer ever waits.
"""

from __future__ import annotations

from datetime import date, timedelta

from db.connection import Cursor
from db.statements import statements

SQL = statements(__file__)

# In the order in which they are dropped: a reading that is gone gets no prediction any more.
PARTITIONED = ("sensor_readings", "ml_anomaly_predictions")
# Made at every start of a service and every minute: three days bridge an outage of the consumers.
AHEAD_DAYS = 3


def today_of(tx: Cursor) -> date:
    """Return the date that rows get which are stored now."""
    tx.execute("SELECT (now() AT TIME ZONE 'UTC')::date")
    today: date = tx.fetchone()[0]
    return today


def of(tx: Cursor, table: str) -> dict[str, date]:
    """Return the partitions of a table and the day before which their rows were stored, in order.

    Without one that a crash left half detached.
    """
    tx.execute(SQL["partitions"], {"table": table})
    return dict(tx.fetchall())


def owns_tables(tx: Cursor) -> bool:
    """Return whether this role may make and drop partitions."""
    tx.execute(SQL["owns_tables"], {"tables": list(PARTITIONED)})
    owns: bool = tx.fetchone()[0]
    return owns


def days_left(tx: Cursor, today: date) -> int:
    """Return for how many days, today included, there are partitions."""
    return min((max(of(tx, t).values(), default=today) - today).days for t in PARTITIONED)


def make_ahead(tx: Cursor, today: date) -> None:
    """Make the partitions up to some days after today; the very first one takes all before, too."""
    if days_left(tx, today) > AHEAD_DAYS:
        return
    # One process at a time, and no writer waits for it.
    tx.execute(f"LOCK TABLE {PARTITIONED[0]} IN SHARE UPDATE EXCLUSIVE MODE")
    for table in PARTITIONED:
        known = of(tx, table)
        begin = max(known.values()) if known else None
        last = today + timedelta(days=AHEAD_DAYS)
        while begin is None or begin <= last:
            # After a pause of several days one partition stands for all of them.
            end = max(begin or today, today) + timedelta(days=1)
            name = f"{table}_{end - timedelta(days=1):%Y%m%d}"
            low = "MINVALUE" if begin is None else f"'{begin}'"
            # ATTACH lets writers go on, CREATE TABLE ... PARTITION OF does not.
            tx.execute(
                f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING INDEXES,"
                f" CONSTRAINT {name}_pkey PRIMARY KEY (source_id, log_offset));"
                f" ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ('{end}')"
            )
            begin = end
