"""The look: colours, wording of numbers and times, the little HTML that Streamlit lacks.

Red is for anomalies and trouble only. All colours hold on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hls_to_rgb
from datetime import datetime, timedelta
from functools import cache
from html import escape
from typing import Any
from zlib import crc32

# Degrees of hue; after Okabe and Ito (2008), told apart by all kinds of colour vision, without
# their vermilion, too near to the red of anomalies. A sensor type has one hue, wherever it is.
HUES = {"temperature": 38, "humidity": 216, "air_quality": 163, "pressure": 288, "co2": 193}
# Relative luminance (WCAG 2.2) from which to which a colour has 3:1 to the light and the dark page.
DARKEST, LIGHTEST = 0.13, 0.28
# Clear colours that do not shout; red alone is louder.
_SATURATION = 0.62
# What belongs to no type.
NEUTRAL = "#6E7F99"
ANOMALY = "#D7263D"
PALE_ANOMALY = "#CC7280"
WARNING = "#C77700"
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
/* Escaped: a style that holds what looks like a tag is taken out of the page. */
@property --seconds {{syntax: "\\3C integer\\3E"; inherits: false; initial-value: 0}}
@keyframes older {{from {{--seconds: 0}} to {{--seconds: 86400}}}}
@keyframes doubtful {{to {{background-color: {WARNING}}}}}
@keyframes amber {{to {{color: {WARNING}; border-color: {WARNING}}}}}
.ticking::before {{counter-reset: seconds var(--seconds); content: counter(seconds) " s";
  animation: older 86400s linear calc(-1s * var(--from))}}
.live .dot.good {{animation: doubtful 1ms linear var(--doubt) forwards}}
.live .age {{animation: amber 1ms linear var(--doubt) forwards}}
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
[data-stale="true"] {{opacity: 1 !important}}
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
    """Return a sensor type as a heading; capitals that it has it keeps.

    >>> name("wind_speed"), name("CO"), name("co"), name("PM10")
    ('Wind speed', 'CO', 'Co', 'PM10')
    """
    words = plain(sensor_type).replace("_", " ")
    return NAMES.get(sensor_type, words[:1].upper() + words[1:])


def heading(sensor_type: str, unit: str | None) -> str:
    """Return a sensor type with its unit, where that is known."""
    return f"{name(sensor_type)} ({plain(unit)})" if unit else name(sensor_type)


def hue(sensor_type: str) -> int:
    """Return the hue of a sensor type, degrees: never that of anomalies."""
    return HUES.get(sensor_type, 30 + crc32(sensor_type.encode()) % 300)


def colour(sensor_type: str) -> str:
    """Return the colour of a sensor type: the same in every figure, whatever else there is."""
    return _painted(hue(sensor_type), (DARKEST + LIGHTEST) / 2 + 0.03)


def shades_of(sensor_type: str, places: Sequence[str]) -> dict[str, str]:
    """Return for each location its shade of a type's colour, from dark to light; alone, the colour.

    ``places`` are all that there are, so that one has the same shade in every figure.
    """
    if len(places) < 2:
        return dict.fromkeys(places, colour(sensor_type))
    steps = [rank / (len(places) - 1) for rank in range(len(places))]
    return {
        place: _painted(
            hue(sensor_type) + 28 * (step - 0.5), DARKEST * (LIGHTEST / DARKEST) ** step
        )
        for place, step in zip(sorted(places), steps, strict=True)
    }


@cache
def _painted(degrees: float, luminance: float) -> str:
    """Return a colour of a hue and a relative luminance."""
    low, high = 0.0, 1.0
    for _ in range(12):
        lightness = (low + high) / 2
        parts = hls_to_rgb(degrees % 360 / 360, lightness, _SATURATION)
        low, high = (lightness, high) if luminance_of(parts) < luminance else (low, lightness)
    return "#" + "".join(f"{round(255 * part):02X}" for part in parts)


def luminance_of(parts: Sequence[float]) -> float:
    """Return the relative luminance, 0..1, of red, green and blue of 0..1 (WCAG 2.2)."""
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def faded(colour: str, opacity: float) -> str:
    """Return a colour that lets what is below it through.

    >>> faded("#D7263D", 0.1)
    'rgba(215,38,61,0.1)'
    """
    return f"rgba({','.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))},{opacity:g})"


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
