"""What the first lines of a recording tell: its delimiter, its header, and what its columns are."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.message import USUAL_NAMES, plain_name
from simulator.cells import guess_day_first, guess_decimal, is_missing, to_number
from simulator.files import NoRecording

DELIMITERS = (",", ";", "\t", "|")
# Numbers that are about a reading, not one.
_NO_QUANTITY = frozenset(
    "lat latitude lon lng longitude altitude elevation index row no nr entryid locationid"
    " measurementid changepoint label epoch".split()
)
# "Temperature [°C]", "Pressure (hPa)": a name and its unit.
_WITH_UNIT = re.compile(r"(.+?)(?:\s*\[(.*)\]|\s+\((.*)\))")


class Wanted(NamedTuple):
    """What the user said of a recording; empty = guess."""

    time_columns: tuple[str, ...] = ()
    value_columns: tuple[str, ...] = ()
    sensor_column: str = ""
    type_column: str = ""
    location_column: str = ""
    delimiter: str = ""
    decimal: str = ""


@dataclass(frozen=True)
class Layout:
    """How to read the lines of a recording.

    Attributes
    ----------
    header_line : int
        Number of the last line of the header, which may have one of units, counted from 1.
    names : list of str
        Of the columns, without their units.
    units : list of str
        Of the columns; "" = unknown.
    time, values : list of int
        Columns that make up the time, and columns of values.
    roles : dict
        Column of each other field of a message that is recorded.
    is_wide : bool
        A column a sensor: its name is that of the sensor.
    decimal : str
        Sign before the decimals.
    day_first : bool
        Of dates like 1/2/2024.
    """

    delimiter: str
    header_line: int
    names: list[str]
    units: list[str]
    time: list[int]
    values: list[int]
    roles: dict[str, int]
    is_wide: bool
    decimal: str
    day_first: bool


def find_layout(lines: Sequence[str], wanted: Wanted) -> Layout:
    """Return the layout that the first lines of a file show.

    Raises
    ------
    NoRecording
        When there is none; the text says which option would help.
    """
    delimiter, at = _find_header(lines, wanted)
    raw_names = split(lines[at].lstrip("#"), delimiter)
    parts = [_WITH_UNIT.fullmatch(name) for name in raw_names]
    names = [m[1] if m else name for m, name in zip(parts, raw_names, strict=True)]
    units = [(m[2] or m[3] or "") if m else "" for m in parts]
    time = _time_columns(names, wanted)
    roles = _roles(names, wanted, time)
    header_line = at + 1
    rows = [split(line, delimiter) for line in lines[header_line:] if line.strip()]
    rows = [row for row in rows if len(row) == len(names)]
    if rows and _is_units(rows[0], time):
        first = rows.pop(0)
        units = [unit or cell.strip("[]()") for unit, cell in zip(units, first, strict=True)]
        header_line += 1
    named = [_index(names, name, "--value-columns") for name in wanted.value_columns]
    is_wide = bool(named) or "value" not in roles
    taken = {*time, *roles.values()}
    others = [i for i in range(len(names)) if i not in taken]
    candidates = named or (others if is_wide else [roles["value"]])
    decimal = wanted.decimal or _decimal(candidates, rows)
    values = candidates if named or not is_wide else _quantities(others, names, rows, decimal)
    if not values:
        raise NoRecording(
            f"no column of numbers among {', '.join(names)[:80]!r}; name them with --value-columns"
        )
    times = (" ".join(row[i] for i in time) for row in rows)
    roles.pop("value", None)
    return Layout(
        *(delimiter, header_line, names, units, time, values, roles, is_wide, decimal),
        guess_day_first(times),
    )


def split(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _find_header(lines: Sequence[str], wanted: Wanted) -> tuple[str, int]:
    """Return the delimiter and the index of the first line that names a column of times."""
    delimiters: Sequence[str] = (wanted.delimiter,) if wanted.delimiter else DELIMITERS
    for at, line in enumerate(lines):
        if said := re.fullmatch(r"sep=(.)\s*", line, re.IGNORECASE):
            delimiters = said[1]  # Excel's first line
            continue
        found = [
            (len(cells), delimiter)
            for delimiter in delimiters
            if len(cells := split(line.lstrip("#"), delimiter)) > 1
            and _time_columns(cells, wanted, is_certain=False)
        ]
        if found:
            return max(found, key=lambda each: each[0])[1], at
    if wanted.time_columns:
        raise NoRecording(f"no column {','.join(wanted.time_columns)} in its first lines")
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first:
        raise NoRecording("empty")
    raise NoRecording(
        f"no column of times in its first lines, e.g. {first[:60]!r}; the first line names the"
        " columns; --time-column says which it is, --delimiter what is between them"
    )


def _time_columns(names: Sequence[str], wanted: Wanted, is_certain: bool = True) -> list[int]:
    plain = [plain_name(re.sub(r"\s*[\[(].*", "", name)) for name in names]
    if wanted.time_columns:
        if not is_certain and not {*map(plain_name, wanted.time_columns)} <= {*plain}:
            return []
        return [_index(names, name, "--time-column") for name in wanted.time_columns]
    if "date" in plain and "time" in plain and "timestamp" not in plain:
        return [plain.index("date"), plain.index("time")]
    for usual in USUAL_NAMES["timestamp"]:
        if usual in plain:
            if is_certain and plain.count(usual) > 1:
                raise NoRecording(f"column {names[plain.index(usual)]} is there twice")
            return [plain.index(usual)]
    return []


def _index(names: Sequence[str], name: str, option: str) -> int:
    plain = [plain_name(each) for each in names]
    if name in names:
        return names.index(name)
    if plain_name(name) in plain:
        return plain.index(plain_name(name))
    raise NoRecording(f"{option} {name}: its columns are {', '.join(names)[:120]}")


def _roles(names: Sequence[str], wanted: Wanted, time: list[int]) -> dict[str, int]:
    plain = [plain_name(name) for name in names]
    options = {
        "sensor_id": (wanted.sensor_column, "--sensor-column"),
        "sensor_type": (wanted.type_column, "--type-column"),
        "location": (wanted.location_column, "--location-column"),
    }
    roles = {field: _index(names, name, opt) for field, (name, opt) in options.items() if name}
    for field in ("value", "sensor_id", "sensor_type", "location", "unit", "anomaly"):
        if field in roles or (field == "value" and wanted.value_columns):
            continue
        for usual in USUAL_NAMES[field]:
            at = plain.index(usual) if usual in plain else -1
            if at >= 0 and at not in time and at not in roles.values():
                if plain.count(usual) > 1:
                    raise NoRecording(f"column {names[at]} is there twice")
                roles[field] = at
                break
    return roles


def _is_units(row: Sequence[str], time: list[int]) -> bool:
    """Tell whether a row is one of units below the header: without a digit in time and values."""
    return not any(c.isdigit() for i in time for c in row[i]) and all(
        isinstance(to_number(cell, "."), str) for cell in row
    )


def _decimal(columns: Iterable[int], rows: Sequence[Sequence[str]]) -> str:
    guess = guess_decimal(row[i] for i in columns for row in rows)
    if guess is None:
        raise NoRecording("values like 1,234 may be 1.234 or 1234; say --decimal , or --decimal .")
    return guess


def _quantities(
    columns: Iterable[int], names: Sequence[str], rows: Sequence[Sequence[str]], decimal: str
) -> list[int]:
    """Return the columns that hold numbers, and hardly anything else, in the first rows."""
    found = []
    for i in columns:
        cells = [row[i] for row in rows if not is_missing(row[i])]
        is_number = [isinstance(to_number(cell, decimal), float) for cell in cells]
        if names[i] and plain_name(names[i]) not in _NO_QUANTITY and cells:
            if sum(is_number) * 2 > len(cells):
                found.append(i)
    return found
