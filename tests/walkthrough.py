"""What docs/extending.md tells its reader to do, block by block."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.conftest import CHECKOUT

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is said in bold above a block, or else the heading.
_HEADING = re.compile(r"^(?:## |\*\*)(.*?)(?:\*\*|$)", re.MULTILINE)
# A block that is a file begins with a comment that names it.
_FILE = re.compile(r"(?:#|--) ([\w/]+\.(?:py|sql))\n")


class Block(NamedTuple):
    """A block of code; ``path`` if it is a file."""

    language: str
    text: str
    path: str | None
    heading: str


def blocks() -> Iterator[Block]:
    """Yield the blocks in order."""
    document = (CHECKOUT / "docs" / "extending.md").read_text("utf-8")
    for found in _BLOCK.finditer(document):
        language, text = found.groups()
        named = _FILE.match(text)
        heading = ["", *_HEADING.findall(document[: found.start()])][-1]
        yield Block(language, text, named and named[1], heading)


class Copy:
    """A copy of the checkout to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        outside = shutil.ignore_patterns(".*", "__pycache__", "docs")
        shutil.copytree(CHECKOUT, folder, ignore=outside)

    def change(self, block: Block) -> None:
        """Apply a diff, or write a file."""
        if block.path:
            path = self.folder / block.path
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text.partition("\n")[2], "utf-8")
        else:
            self.run(["git", "apply", "-"], block)

    def run(self, command: list[str], block: Block, env: Mapping[str, str] | None = None) -> str:
        """Run a command with the block as its input; return what it printed."""
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=env,
            input=block.text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, (block.heading, block.text, ended.stdout, ended.stderr)
        return ended.stdout
