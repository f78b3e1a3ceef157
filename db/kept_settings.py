"""Table kept_settings: settings that the rows depend on, kept with the rows."""

from __future__ import annotations

from db.connection import Cursor, UnsuitableDatabase


class SettingChanged(UnsuitableDatabase):
    """A setting differs from the one that rows were made with."""


def check(tx: Cursor, name: str, value: object) -> None:
    """Refuse another value than the one that is kept; nothing kept is any value.

    Raises
    ------
    SettingChanged
        When there are rows of another value.
    """
    tx.execute("SELECT value FROM kept_settings WHERE name = %s", (name,))
    kept = tx.fetchone()
    if kept and kept[0] != str(value):
        raise SettingChanged(
            f"{name}={value}, but this database has rows made with {name}={kept[0]}, and the two"
            f" cannot be mixed. Set {name}={kept[0]}, or name another database in DATABASE_URL; it"
            " is filled from the topic"
        )


def keep(tx: Cursor, name: str, value: object) -> None:
    """Keep a value with the first rows made with it.

    Raises
    ------
    SettingChanged
        As ``check``; also when another process keeps another value just now.
    """
    # Of two processes that keep a value at once the second waits here for the first.
    tx.execute(
        "INSERT INTO kept_settings (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (name, str(value)),
    )
    check(tx, name, value)
