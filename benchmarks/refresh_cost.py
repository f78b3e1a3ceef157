"""What a refresh of the dashboard costs the browser, for one address or several in one run.

``python -m benchmarks.refresh_cost http://localhost:8501 http://localhost:8502`` opens the first
tab of each in a headless Chromium, in turn, and prints medians a refresh: bytes that came, seconds
of script and of all work, nodes mounted anew, megabytes of memory, warnings on the console.
"""

from __future__ import annotations

import argparse
import json
import shutil
from statistics import median
from typing import Any

# Refreshes of which the median is taken, and how long one is waited for.
REFRESHES = 8
WAIT_MS = 20_000
_METRICS = ("ScriptDuration", "TaskDuration")
# Counts the elements that come, other than those of the strip and the grid, which are text.
_WATCH = """() => {
  window.mountedAnew = 0;
  const each = (changes, look) => changes.forEach((one) => one.addedNodes.forEach(look));
  new MutationObserver((changes) => each(changes, (node) => {
    if (node.querySelector?.("svg.main-svg, canvas.marks, svg.marks, .vega-embed, .plot"))
      window.mountedAnew += 1;
  })).observe(document.body, { childList: true, subtree: true });
}"""


def measure(browser: Any, address: str) -> dict[str, Any]:
    """Return medians over some refreshes of one page."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    warnings: list[str] = []
    page.on("console", lambda line: warnings.extend([line.type]))
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Performance.enable")
    came: list[int] = []
    session.on(
        "Network.webSocketFrameReceived",
        lambda event: came.extend([len(event["response"]["payloadData"]) * 3 // 4]),
    )
    page.goto(f"{address}/?refresh=5s")
    page.locator(".strip").wait_for()
    page.wait_for_timeout(WAIT_MS / 2)
    page.evaluate(_WATCH)
    rows = []
    for _ in range(REFRESHES):
        before, bytes_before = _metrics(session), sum(came)
        strip = page.locator(".strip").text_content()
        page.wait_for_function(
            "known => document.querySelector('.strip').textContent !== known",
            arg=strip,
            timeout=WAIT_MS,
        )
        page.wait_for_timeout(2_500)
        after = _metrics(session)
        rows.append(
            {"bytes": sum(came) - bytes_before}
            | {f"{name}_s": after[name] - before[name] for name in _METRICS}
        )
    found = {key: round(median(row[key] for row in rows), 4) for key in rows[0]}
    session.send("HeapProfiler.collectGarbage")
    found["heap_mb"] = round(_metrics(session)["JSHeapUsedSize"] / 2**20, 1)
    found["mounted_anew"] = page.evaluate("window.mountedAnew")
    page.close()
    return (
        {"address": address}
        | found
        | {"warnings": sum(each in ("warning", "error") for each in warnings)}
    )


def _metrics(session: Any) -> dict[str, float]:
    answer = session.send("Performance.getMetrics")["metrics"]
    return {each["name"]: each["value"] for each in answer}


def main() -> None:
    """Measure each address in turn and print a JSON line each."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for address in options.addresses:
            print(json.dumps(measure(browser, address)))
        browser.close()


if __name__ == "__main__":
    main()
