"""What tabs are made of beside figures: tables and downloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard_tabs.queries import QueryCache
from db.dashboard import MAX_DOWNLOAD
from db.selecting import Rows

# Of a row of a table, pixels: a table ends between two rows, not within one.
_ROW = 35
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(
    rows: pd.DataFrame,
    key: str,
    alt: str,
    columns: Mapping[str, Any],
    most: int = 9,
    **options: Any,
) -> Any:
    """Draw a table, at most ``most`` rows of it at once; ``key`` is its identity over refreshes."""
    return st.dataframe(
        rows,
        hide_index=True,
        height=_ROW * (1 + max(1, min(len(rows), most))) + 2,
        key=key,
        alt=alt,
        placeholder="–",
        column_config=dict(columns),
        **options,
    )


def time(label: str) -> Any:
    """Return a column of times, UTC as in the tables."""
    return st.column_config.DatetimeColumn(label, format="YYYY-MM-DD HH:mm:ss")


def number(label: str, digits: int = 0, unit: str = "", about: str | None = None) -> Any:
    """Return a column of numbers, thousands separated."""
    number_format = f"%,.{digits}f{unit}" if digits else f"%,d{unit}"
    return st.column_config.NumberColumn(label, format=number_format, help=about)


# A window's figures, and a location's.
STATISTICS = {
    "location": "Location",
    "sensor_type": "Type",
    "readings": number("Readings"),
    "mean": number("Mean", 2),
    "stddev": number("Std dev", 2),
    "low": number("Min", 2),
    "high": number("Max", 2),
    "rule_anomalies": number("Flagged by rule"),
    "statistical_anomalies": number("Beyond 3σ"),
}


def download(cache: QueryCache, what: str, query: Callable[..., Rows], *arguments: Any) -> None:
    """Draw a button that saves all rows of a query as a CSV file; asked for at the click."""
    st.download_button(
        f"Download the {what} as CSV",
        lambda: csv(pd.DataFrame(cache.ask(query, *arguments))),
        f"{what.replace(' ', '-')}.csv",
        "text/csv",
        key=f"download-{what}",
        icon=":material/download:",
        on_click="ignore",
        help=f"All that the filters let through, not only what is listed; {MAX_DOWNLOAD:,} rows"
        " at most, the newest.",
    )


def csv(rows: pd.DataFrame) -> str:
    r"""Return rows as CSV: times marked as UTC, and no text that a spreadsheet would run.

    >>> csv(pd.DataFrame({"at": [pd.Timestamp("2026-01-02 03:04")], "id": ["=1+1"]}))
    "at,id\\n2026-01-02T03:04:00Z,'=1+1\\n"
    """
    written = rows.copy()
    for name, column in rows.items():
        if pd.api.types.is_datetime64_any_dtype(column):
            written[name] = [None if pd.isna(each) else f"{each.isoformat()}Z" for each in column]
        elif not pd.api.types.is_numeric_dtype(column):
            written[name] = [
                f"'{each}" if isinstance(each, str) and each.startswith(_FORMULA) else each
                for each in column
            ]
    return written.to_csv(index=False)
