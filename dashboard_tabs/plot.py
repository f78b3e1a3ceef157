"""The one component that draws figures, with plotly.js.

Streamlit's own Plotly chart is mounted anew at every change of its data; this one is told by its
key alone, and hands new data to ``Plotly.react`` (docs/decisions/0020-charts-in-plotly.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import orjson
import streamlit as st
from streamlit.components.v1 import declare_component

from dashboard_tabs.figure import Figure

# The version in ``plotlyjs``: that which the plotly package draws and checks figures with.
PLOTLY_JS = "4.1.1"
_HERE = Path(__file__).parent

# Serves plotly.js; nothing is mounted of it.
declare_component("plotlyjs", path=_HERE / "plotlyjs")

_HTML = """
<figure class="plot"><figcaption><b></b><small></small></figcaption>
<div class="canvas"><div class="drawn" role="img"></div><div class="crosshair" hidden></div></div>
</figure>
"""
_CSS = """
.plot {margin: 0}
.plot figcaption {padding: 0 .25rem; line-height: 1.35}
.plot figcaption b {display: block; font-size: .92rem; font-weight: 600}
.plot figcaption small {display: block; min-height: 1.1rem; font-size: .78rem; opacity: .7}
.plot .canvas {position: relative}
.plot .drawn * {touch-action: pan-y !important}
.plot .crosshair {position: absolute; top: 6px; bottom: 24px; width: 1px; pointer-events: none;
  background: currentColor; opacity: .35}
"""
_mount = st.components.v2.component(
    "plot",
    html=_HTML,
    css=_CSS,
    js=(_HERE / "plot.js").read_text("utf-8").replace("PLOTLY_JS", PLOTLY_JS),
    isolate_styles=False,
)


def draw(figure: Figure, key: str) -> None:
    """Draw a figure; ``key`` is its identity over refreshes."""
    _mount(key=key, data=orjson.dumps(figure, option=orjson.OPT_SERIALIZE_NUMPY))


def in_columns(figures: Mapping[str, Figure], columns: int) -> None:
    """Draw figures in rows of ``columns``; a phone shows them below each other."""
    keys = list(figures)
    for first in range(0, len(keys), columns):
        for column, key in zip(st.columns(columns), keys[first : first + columns], strict=False):
            with column:
                draw(figures[key], key)
