"""Messages to columns: many at once where they are plain, one by one where something is wrong.

One function decodes for all services (``decode_batch``), so that what is aggregated and scored is
what is stored, and every service comes to the same verdict on a message at any later time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from pipeline.message import decode_message
from pipeline.reading import (
    MAX_AHEAD_US,
    MAX_HUNDREDTHS,
    MAX_PAYLOAD_BYTES,
    MAX_US,
    MIN_US,
    TEXT_LENGTHS,
    InvalidReading,
    Message,
    parse_timestamp_us,
    problem_of_numbers,
)

# Arrow counts the bytes of a column in 31 bits.
_MAX_TOGETHER_BYTES = 1 << 28
# Messages parsed together where a batch is not plain. A bad one sends its chunk a slower way.
_CHUNK = 256

_SCHEMA = pa.schema(
    [
        ("sensor_id", pa.string()),
        ("sensor_type", pa.string()),
        ("location", pa.string()),
        ("value", pa.float64()),
        ("timestamp", pa.string()),
        ("anomaly", pa.bool_()),
        ("unit", pa.string()),
    ]
)
# What one of Arrow's threads parses at a time; at least a message.
_READ = json.ReadOptions(block_size=1 << 19)
_PARSE = json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="error")


class _PlainMessage(Message, gc=False, forbid_unknown_fields=True):
    """A message of these fields only: then the parser looks at every byte of it."""


# What stands for a field that is not there.
_DEFAULTS = {
    each.name: each.default
    for each in msgspec.structs.fields(Message)
    if each.default is not msgspec.NODEFAULT
}
_FIELDS = {name: attrgetter(name) for name in _SCHEMA.names}
_parse_plain = msgspec.json.Decoder(_PlainMessage).decode


@dataclass(frozen=True)
class Readings:
    """Readings as columns, in the order of their messages.

    Attributes
    ----------
    position : array of int
        Index of each reading's message in the batch it was decoded from.
    sensor_id, sensor_type, location, unit : Arrow array of string
        As in the message.
    hundredths : array of int64
        Values in hundredths of their unit, exact.
    timestamp_us : array of int64
        Event times, microseconds since the epoch, UTC.
    coarse : mapping
        Sensor types whose values two decimals changed by more than a hundredth of themselves, and
        such a value of each as it was sent.
    """

    position: npt.NDArray[np.int64]
    sensor_id: pa.StringArray
    sensor_type: pa.StringArray
    location: pa.StringArray
    hundredths: npt.NDArray[np.int64]
    timestamp_us: npt.NDArray[np.int64]
    anomaly: npt.NDArray[np.bool_]
    unit: pa.StringArray
    coarse: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: npt.NDArray[np.intp]) -> Readings:
        """Return the readings at ``rows``, in that order."""
        picked = pa.array(rows)
        return Readings(
            self.position[rows],
            self.sensor_id.take(picked),
            self.sensor_type.take(picked),
            self.location.take(picked),
            self.hundredths[rows],
            self.timestamp_us[rows],
            self.anomaly[rows],
            self.unit.take(picked),
            self.coarse,
        )


@dataclass(frozen=True)
class Rejected:
    """A message that is no reading: its index in the batch, the fault as a word and a sentence."""

    position: int
    reason_code: str
    reason: str


def distinct(texts: pa.StringArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in order of appearance, and for each text its number there."""
    encoded = texts.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def decode_batch(
    payloads: Sequence[bytes | None], kafka_timestamp_ms: npt.NDArray[np.int64]
) -> tuple[Readings, list[Rejected]]:
    """Decode messages to columns; whatever is no reading comes back with its reason.

    Parameters
    ----------
    payloads : sequence of bytes or None
        Message values; None is a tombstone.
    kafka_timestamp_ms : array of int64
        When the broker appended each message, milliseconds since the epoch; negative = unknown,
        and then the reading's own time is not checked.
    """
    columns = _parse_together(payloads)
    position = np.arange(len(payloads))
    rejected: list[Rejected] = []
    if columns is None:
        columns, position, rejected = _parse_in_chunks(payloads)
    times, wrong_times = _to_microseconds(columns["timestamp"])
    values = columns["value"].to_numpy()
    hundredths, fits = to_hundredths(values)
    readings = Readings(
        position,
        columns["sensor_id"],
        columns["sensor_type"],
        columns["location"],
        hundredths,
        times,
        columns["anomaly"].to_numpy(zero_copy_only=False),
        columns["unit"],
        _coarse(columns["sensor_type"], values, hundredths),
    )
    appended_us = kafka_timestamp_ms[position] * 1000
    ahead = (appended_us >= 0) & (times > appended_us + MAX_AHEAD_US)
    good = fits & ~ahead
    good[list(wrong_times)] = False
    if not good.all():
        for row in np.flatnonzero(~good).tolist():
            fault = wrong_times.get(row) or problem_of_numbers(
                float(values[row]), columns["timestamp"][row].as_py(), bool(fits[row])
            )
            rejected.append(Rejected(int(position[row]), fault.code, str(fault)))
        readings = readings.take(np.flatnonzero(good))
        rejected.sort(key=lambda r: r.position)
    return readings, rejected


def _parse_together(payloads: Sequence[bytes | None]) -> dict[str, pa.Array] | None:
    """Parse messages that are all good and plain at once, while other threads run; else None.

    Arrow reads one object after another, wherever one message ends and the next begins. But it
    takes no object in an object and no line feed in a text. So where every message begins with
    ``{`` and ends with ``}``, none goes on in the next, and as many objects as messages are one in
    each. It also takes a missing field and null (where they stand for a default this is right),
    NaN and wrong UTF-8: these are looked for afterwards.
    Escapes, which it might understand in another way, are left to ``Message``.
    """
    try:
        joined = b"\n".join(payloads)  # type: ignore[arg-type]  # a tombstone is a TypeError
    except TypeError:
        return None
    if not joined or len(joined) > _MAX_TOGETHER_BYTES or b"\\" in joined:
        return None
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))  # type: ignore[arg-type]
    if not 0 < lengths.min() <= lengths.max() <= MAX_PAYLOAD_BYTES:
        return None
    ends = np.cumsum(lengths + 1) - 1
    text = np.frombuffer(joined, np.uint8)
    if (text[ends - lengths] != ord("{")).any() or (text[ends - 1] != ord("}")).any():
        return None
    try:
        table = json.read_json(pa.BufferReader(joined), _READ, _PARSE)
        # Few calls: after each the thread has to wait for the interpreter.
        table = table.combine_chunks()
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    columns = {name: table[name].chunk(0) for name in _SCHEMA.names}
    for name, default in _DEFAULTS.items():
        if columns[name].null_count:
            columns[name] = columns[name].fill_null(default)
    is_plain = (
        len(table) == len(payloads)
        and not any(column.null_count for column in columns.values())
        and np.isfinite(columns["value"].to_numpy()).all()
        and all(_fits(columns[name], *bounds) for name, bounds in TEXT_LENGTHS.items())
    )
    return columns if is_plain else None


def _fits(texts: pa.StringArray, shortest: int, longest: int) -> bool:
    found = pc.min_max(pc.utf8_length(texts)).as_py()
    return bool(shortest <= found["min"] and found["max"] <= longest)


def _parse_in_chunks(
    payloads: Sequence[bytes | None],
) -> tuple[dict[str, pa.Array], npt.NDArray[np.int64], list[Rejected]]:
    """Parse messages not all of which are plain: the good ones, where they were, the bad."""
    position: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    rejected: list[Rejected] = []
    for begin in range(0, len(payloads), _CHUNK):
        chunk = payloads[begin : begin + _CHUNK]
        messages = _parse_chunk(chunk)
        if messages is not None:
            position += range(begin, begin + len(chunk))
        else:
            messages = []
            for i, payload in enumerate(chunk, begin):
                try:
                    messages.append(decode_message(payload))
                    position.append(i)
                except InvalidReading as problem:
                    rejected.append(Rejected(i, problem.code, str(problem)))
        # While they are in the processor's cache.
        for name, get in _FIELDS.items():
            columns[name] += map(get, messages)
    arrays = {name: pa.array(columns[name], _SCHEMA.field(name).type) for name in columns}
    return arrays, np.array(position, dtype=np.int64), rejected


def _parse_chunk(payloads: Sequence[bytes | None]) -> list[Message] | None:
    """Parse messages that are all good, in half the time; None when one is not."""
    try:
        joined = b"".join(payloads)  # type: ignore[arg-type]  # a tombstone is a TypeError
        # One byte is found ten times as fast as six.
        if b"\\" in joined and b"\\u0000" in joined:
            return None
        if len(joined) > MAX_PAYLOAD_BYTES < max(map(len, payloads)):  # type: ignore[arg-type]
            return None
        return list(map(_parse_plain, payloads))  # type: ignore[arg-type]
    except (TypeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _to_microseconds(
    texts: pa.StringArray,
) -> tuple[npt.NDArray[np.int64], dict[int, InvalidReading]]:
    """Return ``parse_timestamp_us`` of each, and what it refuses, by index (its time is 0)."""
    if (times := _plain_times(texts)) is not None:
        return times, {}
    times = np.zeros(len(texts), dtype=np.int64)
    wrong = {}
    for i, text in enumerate(texts.to_pylist()):
        try:
            times[i] = parse_timestamp_us(text)
        except InvalidReading as problem:
            wrong[i] = problem
    return times, wrong


_PLAIN_TIME = "dddd-dd-ddTdd:dd:dd.dddddd"
_SECONDS_LENGTH = 19


def _plain_times(texts: pa.StringArray) -> npt.NDArray[np.int64] | None:
    """Parse times of one length that end in Z or +00:00, as a table of characters; else None.

    A third of the time of one by one. What a plain time is, is checked here; numpy would take more.
    """
    first = texts[0].as_py() if len(texts) else ""
    zone = "Z" if first.endswith("Z") else "+00:00"
    length = len(first) - len(zone)
    if not _SECONDS_LENGTH <= length <= len(_PLAIN_TIME) or length == _SECONDS_LENGTH + 1:
        return None
    if (pc.binary_length(texts).to_numpy() != len(first)).any():
        return None
    pattern = np.frombuffer((_PLAIN_TIME[:length] + zone).encode(), dtype=np.uint8)
    is_digit = pattern == ord("d")
    characters = _characters(texts)
    # Below "0" the difference wraps around.
    if (characters[:, is_digit] - ord("0") > 9).any():
        return None
    if (characters[:, ~is_digit] != pattern[~is_digit]).any():
        return None
    plain = np.ascontiguousarray(characters[:, :length]).view(f"S{length}")[:, 0]
    try:
        times = plain.astype("datetime64[us]").astype(np.int64)
    except ValueError:  # the 30th of February
        return None
    return times if MIN_US <= times.min() and times.max() < MAX_US else None


def _characters(texts: pa.StringArray) -> npt.NDArray[np.uint8]:
    """Return texts of one length as a table of bytes, a text a row."""
    begin, end = np.frombuffer(texts.buffers()[1], np.int32)[
        [texts.offset, texts.offset + len(texts)]
    ]
    return np.frombuffer(texts.buffers()[2], np.uint8)[begin:end].reshape(len(texts), -1)


def _coarse(
    sensor_type: pa.StringArray,
    values: npt.NDArray[np.float64],
    hundredths: npt.NDArray[np.int64],
) -> dict[str, float]:
    # Half a hundredth is a hundredth of half a unit: only smaller values can be changed so much.
    small = np.flatnonzero((np.abs(values) < 0.5) & (values != 0))
    rows = small[np.abs(hundredths[small] - values[small] * 100) > np.abs(values[small])]
    types = sensor_type.take(pa.array(rows)).to_pylist()
    return dict(zip(types, values[rows].tolist(), strict=True))


def to_hundredths(
    values: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Round values half even to hundredths, as the decimal numbers that their text says.

    Binary doubles blur ties: 1.145 is a tie, the double nearest to it is not. Near a tie the
    shortest decimal that reads back as the double decides.

    Returns
    -------
    hundredths : array of int64
        0 where the value does not fit.
    fits : array of bool
        Whether the rounded value fits NUMERIC(10,2).
    """
    possible = np.abs(values) <= MAX_HUNDREDTHS / 100 + 1  # False for NaN
    scaled = np.where(possible, values, 0.0) * 100.0
    hundredths = np.rint(scaled).astype(np.int64)
    # 1e10 hundredths have an ulp of 2e-6, so a tie that was blurred is well within 1e-4.
    near_tie = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-4
    for i in np.flatnonzero(near_tie).tolist():
        exact = Decimal(repr(float(values[i]))).scaleb(2)
        hundredths[i] = int(exact.to_integral_value(rounding=ROUND_HALF_EVEN))
    return hundredths, possible & (np.abs(hundredths) <= MAX_HUNDREDTHS)
