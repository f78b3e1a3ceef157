"""Command-line options that the services share, and how a command line ends the process."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class _OneLineParser(argparse.ArgumentParser):
    """A parser that says a mistake in one line, like every other user's mistake."""

    def error(self, message: str) -> NoReturn:
        """Write the mistake to standard error and exit with status 2."""
        sys.stderr.write(f"error: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)


def service_parser(description: str | None, once: str = "") -> argparse.ArgumentParser:
    """Return a parser whose help opens with the script's docstring; ``--once`` if that is said."""
    parser = _OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if once:
        parser.add_argument("--once", action="store_true", help=once)
    return parser
