"""Lists as one literal each, ``'{1,2}'``, where psycopg2 writes ``ARRAY[1,2]``.

PostgreSQL parses the elements of an ARRAY one by one as expressions; a literal is read by the type
it is cast to, so it needs a cast where nothing else says which. A statement with twenty lists of
500 elements takes half the time.
"""

from __future__ import annotations

from typing import Any

from psycopg2.extensions import QuotedString


class ArrayLiteral:
    """A list of numbers, texts, times, bytes or None, as psycopg2 asks for it."""

    def __init__(self, elements: list[Any]) -> None:
        self._literal = QuotedString("{" + _joined(elements) + "}")

    def prepare(self, connection: Any) -> None:
        """Take the encoding, and the way to escape, from the connection."""
        self._literal.prepare(connection)

    def getquoted(self) -> bytes:
        """Return the literal as it stands in the statement."""
        quoted: bytes = self._literal.getquoted()
        return quoted


def _joined(elements: list[Any]) -> str:
    if all(isinstance(element, int | float) for element in elements):
        return ",".join(map(str, elements))
    if None in elements:
        return ",".join("NULL" if each is None else _joined([each]) for each in elements)
    # No text of PostgreSQL's holds a zero byte: it stands between two until all are escaped.
    text = "\0".join(map(_text, elements)).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\0", '","') + '"'


def _text(element: Any) -> str:
    if hasattr(element, "getquoted"):  # already SQL: as text it would be stored with its quotes
        raise TypeError(f"a list must not hold {type(element).__name__}")
    return f"\\x{element.hex()}" if isinstance(element, bytes) else str(element)
