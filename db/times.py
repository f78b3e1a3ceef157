"""Event times: microseconds since the epoch in the program, TIMESTAMP (UTC) in the tables."""

from __future__ import annotations

from datetime import datetime, timedelta

# Naive, as the columns are: they hold UTC by contract.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001


def to_timestamp(microseconds: int) -> datetime:
    """Return the value for a TIMESTAMP column."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(timestamp: datetime) -> int:
    """Return a TIMESTAMP column's value as microseconds since the epoch."""
    return (timestamp - _EPOCH) // timedelta(microseconds=1)
