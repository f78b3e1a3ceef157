"""What the commands beside the services share."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_time(text: str) -> datetime:
    """Return an ISO 8601 time of a command line as the tables have it; without an offset UTC."""
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
