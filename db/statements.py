"""SQL longer than a line stands beside its module: ``db/offsets.sql`` beside ``db/offsets.py``."""

from __future__ import annotations

import re
from pathlib import Path

# A statement begins with a line ``-- name: what it is called``; comments below it say why it is so.
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statements(module_file: str) -> dict[str, str]:
    """Return the statements of the ``.sql`` file beside a module, by name.

    Parameters
    ----------
    module_file : str
        The module's ``__file__``.

    Raises
    ------
    ValueError
        When two statements have one name.
    """
    path = Path(module_file).with_suffix(".sql")
    _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
    found = dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))
    if len(found) * 2 != len(parts):
        raise ValueError(f"{path.name}: a name stands above two statements")
    return found
