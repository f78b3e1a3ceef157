"""detector_claims: which detector works on which sensor type. Saves work; it is not the fence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg2.extras import execute_values

from db.connection import Cursor


def session_name(instance: str) -> str:
    """Return the application_name by which others see that an instance lives (63 bytes at most)."""
    return f"ml_detector {instance}"[:63]


def share_types(
    tx: Cursor, instance: str, known_types: Iterable[str], lease_seconds: float
) -> tuple[list[str], list[str]]:
    """Renew this instance's claims and take free types up to its fair share.

    A claim is free when it has expired, or when its holder has no session with this database.
    The session of one that only failed to renew is ended: stopped in the middle of a COPY it would
    hold its rows against its successor for as long as it sleeps.

    Returns
    -------
    held : list of str
        Types this instance works on now.
    surplus : list of str
        Those of them that it should release for others.
    """
    known = sorted(known_types)
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('detector_claims'))")
    tx.execute(
        "SELECT sensor_type, instance, expires_at < clock_timestamp() AT TIME ZONE 'UTC'"
        " OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = left('ml_detector ' || instance, 63))"
        " FROM detector_claims"
    )
    claims = {t: (holder, free) for t, holder, free in tx.fetchall()}
    mine = [t for t, (holder, _) in claims.items() if holder == instance]
    others = {session_name(h) for h, free in claims.values() if h != instance and not free}
    # One that has let a claim expire sleeps. So does one whose session has long done nothing: it
    # may have fallen asleep before it held any, and would keep its share from the others.
    asleep = {session_name(h) for h, free in claims.values() if h != instance and free}
    tx.execute(
        "SELECT DISTINCT application_name FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'ml_detector %%'"
        " AND greatest(query_start, state_change) > clock_timestamp() - %s * interval '1 second'",
        (lease_seconds,),
    )
    awake = {row[0] for row in tx.fetchall()}
    live = sorted((awake - asleep) | others | {session_name(instance)})
    place = live.index(session_name(instance))
    quota = len(known) // len(live) + (place < len(known) % len(live))
    free = [t for t in known if t not in claims or (claims[t][1] and t not in mine)]
    taken = free[: max(0, quota - len(mine))]
    dead = {claims[t][0] for t in taken if t in claims}
    if dead:
        tx.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = ANY(%s)",
            ([session_name(i) for i in dead],),
        )
    held = sorted({*mine, *taken})
    if held:
        execute_values(
            tx,
            "INSERT INTO detector_claims (sensor_type, instance, expires_at) VALUES %s"
            " ON CONFLICT (sensor_type) DO UPDATE SET instance = EXCLUDED.instance,"
            " expires_at = EXCLUDED.expires_at",
            [(t, instance, lease_seconds) for t in held],
            template="(%s, %s, (clock_timestamp() AT TIME ZONE 'UTC') + %s * interval '1 second')",
        )
    return held, held[quota:] if len(live) > 1 else []


def release_types(tx: Cursor, instance: str, sensor_types: Sequence[str]) -> None:
    """Give claims back."""
    tx.execute(
        "DELETE FROM detector_claims WHERE instance = %s AND sensor_type = ANY(%s)",
        (instance, list(sensor_types)),
    )
