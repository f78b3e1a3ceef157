"""Files of recordings to lines of text: compressed or not, in whatever encoding they are."""

from __future__ import annotations

import gzip
import io
from typing import Protocol, TextIO

# Enough to tell what a file is, bytes.
_PROBE_BYTES = 65_536
_GZIP = b"\x1f\x8b"
_OTHER_FILES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"PAR1": "Parquet: convert it to CSV",
    b"BZh": "compressed by bzip2: bzcat FILE | producer.py --replay -",
    b"\xfd7zXZ": "compressed by xz: xzcat FILE | producer.py --replay -",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: zstdcat FILE | producer.py --replay -",
    b"SQLite format 3": "a SQLite database: export it as CSV",
}


class NoRecording(ValueError):
    """The file cannot be read as a recording at all."""


class Source(Protocol):
    """Bytes: ``most`` of them, or what is there."""

    def read(self, most: int, /) -> bytes:
        """Return fewer at the end, or before a pause."""

    def read1(self, most: int, /) -> bytes:
        """Return at least one, but at the end."""


def open_text(stream: Source) -> TextIO:
    """Return the text of a file that is open at its beginning; read once, so it may be a pipe.

    Bytes that do not belong to the encoding come as surrogates, for the decoder to refuse.

    Raises
    ------
    NoRecording
        When the file is of a kind that is known to be no text.
    """
    head = stream.read(_PROBE_BYTES)
    rejoined = io.BufferedReader(_Rejoined(head, stream), _PROBE_BYTES)
    if head.startswith(_GZIP):
        return open_text(gzip.GzipFile(fileobj=rejoined))
    for magic, meaning in _OTHER_FILES.items():
        if head.startswith(magic):
            raise NoRecording(meaning)
    encoding = _encoding(head)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return io.TextIOWrapper(rejoined, encoding, errors)


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(head) > 1 and not any(head[1:200:2]):
        return "utf-16-le"
    if len(head) > 1 and not any(head[0:200:2]):
        return "utf-16-be"
    whole = head[: head.rfind(b"\n") + 1] or head
    text = whole.decode("utf-8", "surrogateescape")
    beyond_ascii = [c for c in text if c > "\x7f"]
    wrong = sum("\udc80" <= c <= "\udcff" for c in beyond_ascii)
    # A wrong byte or two cost their lines; a file of them is in another encoding, Windows' by far
    # the likeliest.
    return "cp1252" if wrong * 2 > len(beyond_ascii) else "utf-8-sig"


class _Rejoined(io.RawIOBase):
    """A stream from its beginning again, though its head has been read."""

    def __init__(self, head: bytes, rest: Source) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._head[: len(buffer)] or self._rest.read1(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
