"""Columns to COPY's text format: the fastest way in, and no value is part of a statement."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from db.connection import Cursor

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
NULL = "\\N"


def rows_text(fields: Sequence[Iterable[str]]) -> str:
    """Return columns of already formatted fields, from the functions below, as rows."""
    text = "\n".join(map("\t".join, zip(*fields, strict=True)))
    return text + "\n" if text else ""


def copy_text(tx: Cursor, table: str, columns: Sequence[str], text: str) -> None:
    """COPY rows into a table; names are written in this program, never input."""
    if text:
        data = text.encode()
        # In one piece: between two the thread would wait for the interpreter.
        tx.copy_expert(
            f"COPY {table} ({', '.join(columns)}) FROM STDIN", io.BytesIO(data), len(data)
        )


def copy_rows(
    tx: Cursor, table: str, columns: Sequence[str], fields: Sequence[Iterable[str]]
) -> None:
    """COPY columns of already formatted fields."""
    copy_text(tx, table, columns, rows_text(fields))


def text_fields(values: Sequence[str]) -> list[str]:
    """Return text with COPY's special characters escaped."""
    escaped = {value: value.translate(_ESCAPES) for value in set(values)}
    return [escaped[value] for value in values]


def hundredths_fields(hundredths: npt.NDArray[np.int64]) -> list[str]:
    """Return hundredths as decimal numbers: 2150 is 21.50, written 2150e-2."""
    return [f"{value}e-2" for value in hundredths.tolist()]


def timestamp_fields(timestamp_us: npt.NDArray[np.int64]) -> list[str]:
    """Return microseconds since the epoch as UTC timestamps."""
    fields: list[str] = np.datetime_as_string(timestamp_us.astype("datetime64[us]")).tolist()
    return fields


def boolean_fields(values: npt.NDArray[np.bool_]) -> list[str]:
    """Return booleans."""
    return np.where(values, "t", "f").tolist()


def integer_fields(values: npt.NDArray[np.int64]) -> list[str]:
    """Return integers."""
    return [str(value) for value in values.tolist()]
