"""The look: colours, wording of numbers and times, the little HTML that Streamlit lacks.

Red is for anomalies and trouble only. All colours hold on a light and on a dark page.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from html import escape
from typing import Any
from zlib import crc32

# After Okabe and Ito (2008), told apart by all kinds of colour vision; without their vermilion,
# which is too near to the red of anomalies. A sensor type has one colour, wherever it appears.
COLOURS = {
    "temperature": "#E69F00",
    "humidity": "#3B7DD8",
    "air_quality": "#009E73",
    "pressure": "#B26AA8",
    "co2": "#4FA9DC",
}
OTHER_COLOURS = ("#A6761D", "#7570B3", "#5E9C9C", "#8C9A3B")
# What belongs to no type.
NEUTRAL = "#6E7F99"
ANOMALY = "#D7263D"
PALE_ANOMALY = "#E88A97"
WARNING = "#E08A00"
GOOD = "#2E9E6B"
QUIET = "#8A8D91"

NAMES = {"co2": "CO₂", "air_quality": "Air quality"}

STYLE = f"""
<style>
.block-container {{padding: 2.2rem clamp(1rem, 3vw, 2.4rem) 3rem; max-width: 1500px}}
.strip {{display: flex; flex-wrap: wrap; gap: .5rem; align-items: stretch}}
.strip > div {{padding: .45rem .65rem; border-radius: .6rem; line-height: 1.25; flex: 1 0 auto;
  max-width: 13rem;
  border: 1px solid color-mix(in srgb, currentColor 12%, transparent);
  background: color-mix(in srgb, currentColor 3%, transparent); font-size: .86rem}}
.strip small, .grid small {{display: block; opacity: .65; font-size: .74rem; white-space: nowrap}}
.strip b {{font-weight: 600; font-variant-numeric: tabular-nums}}
.dot {{display: inline-block; width: .55rem; height: .55rem; border-radius: 50%;
  margin-right: .4rem; vertical-align: .03rem}}
.good {{background: {GOOD}}} .warning {{background: {WARNING}}}
.bad {{background: {ANOMALY}}} .quiet {{background: {QUIET}}}
.scroll {{overflow-x: auto}}
.grid {{border-collapse: separate; border-spacing: .4rem; width: calc(100% + .8rem);
  margin: 0 -.4rem; table-layout: fixed}}
.grid th {{font-weight: 500; font-size: .82rem; opacity: .75; text-align: left; padding: 0 .3rem;
  border: none; overflow: hidden; text-overflow: ellipsis}}
.grid tr.head th {{white-space: nowrap}}
.grid th.place, .grid td.corner {{width: 8.5rem}}
.grid td.corner {{border: none; background: none}}
.unseen {{position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)}}
[data-testid="stMetricValue"] {{font-size: 1.7rem; font-variant-numeric: tabular-nums}}
[data-testid="stSidebar"] [data-testid="stButtonGroup"] button {{padding: .25rem .55rem;
  min-height: 2.1rem}}
.grid td {{padding: .4rem .6rem .2rem; border-radius: .55rem; overflow: hidden;
  border: 1px solid color-mix(in srgb, currentColor 11%, transparent);
  background: color-mix(in srgb, currentColor 2.5%, transparent)}}
.grid td.absent {{border: 1px dashed color-mix(in srgb, currentColor 12%, transparent);
  background: none}}
.grid td.anomalous {{border-color: {ANOMALY};
  background: color-mix(in srgb, {ANOMALY} 10%, transparent)}}
.grid td.silent {{opacity: .5}}
.grid b {{font-size: 1.12rem; font-weight: 600; font-variant-numeric: tabular-nums}}
.grid i {{font-style: normal; font-size: .76rem; opacity: .65; margin-left: .2rem}}
.grid .dot {{opacity: 1; margin-left: 0}}
.grid img {{display: block; width: 100%; height: 22px; margin-top: .1rem}}
.grid small {{display: none}}
[data-testid="stSidebarHeader"] {{height: 3rem; margin-bottom: 0}}
@media (max-width: 640px) {{
  .block-container {{padding-top: 4.2rem}}
  /* A place, then its sensors, each with the name that heads its column on wider pages. */
  .grid {{min-width: 0 !important; display: block}} .grid tbody {{display: block}}
  .grid tr {{display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; padding: 0 .4rem}}
  .grid tr.head, .grid td.absent {{display: none}}
  .grid th.place {{grid-column: 1 / -1; width: auto; padding: .6rem 0 0}}
  .grid td {{padding: .35rem .5rem .2rem; min-width: 0}} .grid b {{font-size: 1rem}}
  .grid small {{display: block; overflow: hidden; text-overflow: ellipsis}}
}}
</style>
"""


def name(sensor_type: str) -> str:
    """Return a sensor type as a heading."""
    return NAMES.get(sensor_type, plain(sensor_type).replace("_", " ").capitalize())


def heading(sensor_type: str, unit: str | None) -> str:
    """Return a sensor type with its unit, where that is known."""
    return f"{name(sensor_type)} ({plain(unit)})" if unit else name(sensor_type)


def colour(sensor_type: str) -> str:
    """Return the colour of a sensor type: the same on every chart, whatever else there is."""
    others = OTHER_COLOURS[crc32(sensor_type.encode()) % len(OTHER_COLOURS)]
    return COLOURS.get(sensor_type, others)


def shades(colour: str, count: int) -> list[str]:
    """Return shades of a colour from dark to light; the colour itself for one.

    >>> shades("#808080", 2)
    ['#5a5a5a', '#b5b5b5']
    """
    if count < 2:
        return [colour] * count
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    found = []
    for step in range(count):
        share = -0.3 + step * 0.72 / (count - 1)  # of black, then of white
        mixed = [p * (1 + share) if share < 0 else p + (255 - p) * share for p in parts]
        found.append("#" + "".join(f"{round(p):02x}" for p in mixed))
    return found


def cut(value: str, most: int) -> str:
    """Return a text, shortened to at most ``most`` characters."""
    value = plain(value)
    return value if len(value) <= most else value[: most - 1].rstrip() + "…"


def plain(value: str) -> str:
    """Return a text with what does not print, or turns the direction of writing, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)


def short(number: float | None, digits: int = 1) -> str:
    """Return a number as people read it: 999, 12.3 k, 4.5 M; a dash for none."""
    if number is None or number != number:
        return "–"
    for limit, unit in ((1e9, " bn"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == ' k' else limit):,.{digits}f}{unit}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.{digits}f}"


def size(count_bytes: float | None) -> str:
    """Return a number of bytes as people read it."""
    if count_bytes is None:
        return "–"
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count_bytes >= limit:
            return f"{count_bytes / limit:,.1f} {unit}"
    return f"{count_bytes:.0f} B"


def age(seconds: float) -> str:
    """Return a length of time as people say it."""
    for limit, unit in ((172_800, "d"), (7_200, "h"), (120, "min")):
        if seconds >= limit:
            per = {"d": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{seconds / per:,.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def clock(time: datetime, near: datetime) -> str:
    """Return a time of day, with its date where that is not the day of ``near``."""
    within_a_day = abs(near - time) < timedelta(hours=20)
    return f"{time:%H:%M:%S}" if within_a_day else f"{time:%Y-%m-%d %H:%M:%S}"


def text(value: Any) -> str:
    """Return anything as text that HTML shows and does not obey."""
    return escape(plain(str(value)), quote=True)
