"""Columns to COPY: the fastest way in, and no value is part of a statement; Arrow writes them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from db.connection import Cursor

# Text is quoted, so that an empty one is not NULL.
_CSV = csv.WriteOptions(include_header=False, quoting_style="needed")


def to_csv(columns: Mapping[str, Any]) -> bytes:
    """Return columns of one length as rows; a masked or None value is NULL.

    Parameters
    ----------
    columns : mapping
        Lists and arrays by column name; values in hundredths and times go through the functions
        below.
    """
    out = pa.BufferOutputStream()
    csv.write_csv(pa.table(dict(columns)), out, _CSV)
    return out.getvalue().to_pybytes()


def copy_csv(tx: Cursor, table: str, columns: Sequence[str], rows: bytes) -> None:
    """COPY what ``to_csv`` made; names are written in this program, never input."""
    if rows:
        # In one piece: between two the thread would wait for the interpreter.
        tx.copy_expert(
            f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)",
            io.BytesIO(rows),
            len(rows),
        )


def values(hundredths: npt.NDArray[np.int64]) -> pa.Array:
    """Return hundredths as numbers: the shortest text of the double is the decimal number."""
    return pa.array(hundredths / 100)


def times(timestamp_us: npt.NDArray[np.int64]) -> pa.Array:
    """Return microseconds since the epoch as UTC timestamps."""
    return pa.array(timestamp_us).cast(pa.timestamp("us"))
