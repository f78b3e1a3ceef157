"""The dashboard as people see it: a real browser, a real server, a database that is taken away."""

import os
import shutil
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from urllib.parse import quote

import psutil
import psycopg2
import pytest

from local_stack.postgres import LocalPostgres
from local_stack.processes import free_port
from tests.conftest import CHECKOUT, _missing
from tests.integration.test_dashboard import (
    AGGREGATE,
    CORRELATE,
    COUNT,
    FIT,
    HEARTBEAT,
    PREDICT,
    STORE,
)
from tests.waiting import until

pytestmark = pytest.mark.e2e

TABS = {
    "Real-Time Monitoring": "Readings by type",
    "Windowed Aggregates": "Readings per window",
    "ML Anomaly Detection": "Latest anomalies",
    "Analytics": "Correlation between sensor types",
    "Pipeline Health": "Dead letters",
}
CHART = ".plot .main-svg"
# On a machine busy with other work a first page takes half a minute.
PATIENCE_MS = 90_000
# A refresh every 5 s, and time to draw it.
REFRESH_MS = 30_000


@pytest.fixture(scope="module")
def postgres_of_its_own(tmp_path_factory):
    """A PostgreSQL that a test may stop."""
    with LocalPostgres(tmp_path_factory.mktemp("browser-postgres"), durable=False) as local:
        yield local


@pytest.fixture(scope="module")
def database_url(postgres_of_its_own):
    from db.connection import Database
    from db.versions import apply_schema

    url = postgres_of_its_own.create_database("browser")
    with Database(url, "test") as database:
        apply_schema(database)
    store(url, *[(STORE, ("t-2", datetime.now(UTC).replace(tzinfo=None)))])
    store(url, *[(each, None) for each in (AGGREGATE, CORRELATE, HEARTBEAT, FIT, PREDICT, COUNT)])
    return url


def store(url, *statements):
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        for statement, parameters in statements:
            cursor.execute(statement, parameters)
    connection.close()


@pytest.fixture(scope="module")
def address(database_url, tmp_path_factory):
    """Address of a running dashboard."""
    port = free_port()
    folder = tmp_path_factory.mktemp("browser")
    command = [sys.executable, "-m", "streamlit", "run", str(CHECKOUT / "dashboard.py")]
    command += ["--server.port", str(port), "--server.headless", "true"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, "DATABASE_URL": database_url, "DASHBOARD_REFRESH_SECONDS": "60"},
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
        )
    health = f"http://127.0.0.1:{port}/_stcore/health"
    until(lambda: urllib.request.urlopen(health).read() == b"ok", ignoring=OSError)
    yield f"http://localhost:{port}"
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        _missing("Chromium", "not installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def page(browser):
    """A page that must log neither errors nor warnings."""
    one = browser.new_page(viewport={"width": 1440, "height": 900})
    one.set_default_timeout(PATIENCE_MS)
    problems = []
    one.on("console", lambda line: line.type in ("error", "warning") and problems.append(line.text))
    one.on("pageerror", lambda problem: problems.append(str(problem)))
    yield one
    assert one.locator('[data-testid="stException"]').count() == 0
    one.close()
    assert problems == []


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_renders(tab, page, address):
    page.goto(f"{address}/?tab={quote(tab)}")
    page.get_by_text(TABS[tab], exact=True).first.wait_for()
    page.locator(".strip").wait_for()
    if tab != "Pipeline Health":
        page.locator(".plot").first.scroll_into_view_if_needed()  # what nobody sees is not drawn
        page.locator(CHART).first.wait_for()


def test_a_phone_is_wide_enough(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.locator(".plot").last.scroll_into_view_if_needed()
    page.locator(CHART).last.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_a_new_reading_appears_by_itself(page, address, database_url):
    page.goto(f"{address}/?refresh=5s")
    page.locator(".grid").wait_for()
    store(
        database_url,
        (
            "INSERT INTO sensor_readings (sensor_id, sensor_type, location, value, timestamp,"
            " anomaly, unit, source_id, log_offset) VALUES ('t-1', 'temperature', 'Lab', 4321.5,"
            " clock_timestamp() AT TIME ZONE 'UTC', false, '°C', 1, 1000000)",
            None,
        ),
    )
    page.locator(".grid").get_by_text("4,321.5").wait_for(timeout=REFRESH_MS)


def test_filters_go_to_the_address_and_come_from_it(page, address):
    page.goto(address)
    page.locator(".grid").wait_for()
    page.get_by_role("tab", name="Analytics").click()
    page.get_by_text("24h", exact=True).click()
    page.wait_for_url("**range=24h**")
    assert "tab=Analytics" in page.url
    page.goto(f"{address}/?location=Hall")
    page.locator(".grid").wait_for()
    assert page.locator(".grid tr").count() == 2  # the heading, and Hall


def test_it_recovers_from_a_restart_of_the_database_without_a_reload(
    page, address, postgres_of_its_own
):
    page.goto(f"{address}/?refresh=5s")
    page.locator(".grid").wait_for()
    postgres_of_its_own.stop()
    banner = page.get_by_text("The database does not answer")
    banner.wait_for(timeout=REFRESH_MS)
    assert page.locator(".grid td b").count() > 0  # what was last known stays
    postgres_of_its_own.start()
    banner.wait_for(state="hidden", timeout=2 * REFRESH_MS)
    assert page.locator(".grid td b").count() > 0


def test_while_nothing_answers_the_page_grows_old_before_your_eyes(
    page, address, postgres_of_its_own, database_url
):
    beat = "UPDATE service_status SET updated_at = clock_timestamp() AT TIME ZONE 'UTC'"
    store(database_url, (beat, None))
    page.goto(f"{address}/?refresh=5s")
    page.locator(".dot.good").wait_for(timeout=REFRESH_MS)
    style = "each => getComputedStyle(document.querySelector(each)).{}"
    fresh = page.evaluate(style.format("color"), ".strip .age")
    postgres = psutil.Process(postgres_of_its_own.pid)
    family = [postgres, *postgres.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        page.wait_for_function(
            "fresh => getComputedStyle(document.querySelector('.strip .age')).color !== fresh",
            arg=fresh,
            timeout=2 * REFRESH_MS,
        )
        good = page.evaluate(style.format("backgroundColor"), ".strip .dot.good")
        assert good == "rgb(199, 119, 0)"  # amber, too
    finally:
        for process in family:
            process.resume()
    page.wait_for_function(
        "fresh => getComputedStyle(document.querySelector('.strip .age')).color === fresh",
        arg=fresh,
        timeout=2 * REFRESH_MS,
    )


def refreshed(page):
    """Wait until the page shows another moment than now, and its figures have been drawn."""
    strip = page.locator(".strip").text_content()
    page.wait_for_function(
        "known => document.querySelector('.strip').textContent !== known",
        arg=strip,
        timeout=REFRESH_MS,
    )
    page.wait_for_timeout(1000)


def ranges(page):
    """Return from when to when each figure over time is drawn."""
    return page.evaluate(
        "[...document.querySelectorAll('.plot .js-plotly-plot')]"
        ".filter(each => each.layout?.meta.group).map(each => each._fullLayout.xaxis.range)"
    )


def test_a_refresh_mounts_no_figure_anew_and_keeps_zoom_hover_and_scroll(page, address):
    page.goto(f"{address}/?tab=Windowed+Aggregates&refresh=5s&range=1h")
    chart = page.locator(".plot .drawn").first
    chart.scroll_into_view_if_needed()  # what nobody sees is not drawn
    chart.locator(".main-svg").first.wait_for()
    chart.scroll_into_view_if_needed()  # it has grown
    page.evaluate(
        "document.querySelectorAll('.plot .drawn').forEach(each => each.dataset.mark = 'mine')"
    )
    whole = ranges(page)[0]
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "whole => document.querySelector('.plot .drawn')._fullLayout.xaxis.range[0] !== whole",
        arg=whole[0],
    )
    page.wait_for_timeout(500)
    zoomed = ranges(page)
    assert all(each == zoomed[0] for each in zoomed)  # one range for all figures of the tab
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 80)
    scrolled = page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop")
    refreshed(page)
    assert set(map(tuple, ranges(page))) == {tuple(zoomed[0])}
    marks = page.locator(".plot .drawn").evaluate_all("all => all.map(each => each.dataset.mark)")
    assert set(marks) == {"mine"}
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == scrolled
    page.mouse.dblclick(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.wait_for_function(
        "zoomed => document.querySelector('.plot .drawn')._fullLayout.xaxis.range[0] !== zoomed",
        arg=zoomed[0][0],
    )
    assert ranges(page)[0][0] <= whole[1]


def test_what_the_legend_hides_stays_hidden_over_a_refresh(page, address):
    page.goto(f"{address}/?tab=ML+Anomaly+Detection&refresh=5s&range=1h")
    toggle = page.locator(".plot .legendtoggle").last
    toggle.wait_for()
    hidden = (
        "[...document.querySelectorAll('.plot .drawn')].flatMap(each => each._fullData ?? [])"
        ".filter(each => each.visible === 'legendonly').map(each => each.name)"
    )
    toggle.click()
    page.wait_for_function(f"{hidden}.length === 1")
    before = page.evaluate(hidden)
    refreshed(page)
    assert page.evaluate(hidden) == before


def test_a_change_of_theme_repaints_the_figures_in_place(page, address):
    page.emulate_media(color_scheme="light")
    page.goto(address)
    page.locator(CHART).first.wait_for()
    ink = "document.querySelector('.plot .drawn').layout.font.color"
    light = page.evaluate(ink)
    page.evaluate("document.querySelector('.plot .drawn').dataset.mark = 'mine'")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {ink} !== light", arg=light, timeout=REFRESH_MS)
    assert page.locator(".plot .drawn").first.get_attribute("data-mark") == "mine"


def test_figures_are_as_wide_as_their_columns_also_when_the_side_bar_is_folded(page, address):
    widths = (
        "() => [...document.querySelectorAll('.plot .drawn')].filter((e) => e._fullLayout)"
        ".map((e) => [e.clientWidth, Math.round(e._fullLayout.width)])"
    )
    page.goto(f"{address}/?tab={quote('Windowed Aggregates')}")
    page.locator(CHART).first.wait_for()
    before = page.evaluate(widths)[0][0]
    page.locator('[data-testid="stSidebar"]').hover()
    page.locator('[data-testid="stSidebarCollapseButton"] button').click()
    until(lambda: page.evaluate(widths)[0][0] > before + 50)
    until(lambda: all(abs(column - figure) <= 1 for column, figure in page.evaluate(widths)))


def test_a_finger_on_a_figure_scrolls_the_page(browser, address):
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{address}/?tab=Windowed+Aggregates")
    chart = page.locator(".plot .drawn").first
    chart.scroll_into_view_if_needed()  # what nobody sees is not drawn
    chart.locator(".main-svg").first.wait_for()
    finger = context.new_cdp_session(page)
    top = "document.querySelector('[data-testid=stMain]').scrollTop"

    def drag_up():
        # Looked for each time: it has grown since, and a notice above it moves it.
        chart.scroll_into_view_if_needed()
        before, box = page.evaluate(top), chart.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, points in (
            ("touchStart", [{"x": x, "y": y}]),
            *(("touchMove", [{"x": x, "y": y - 15 * step}]) for step in range(1, 13)),
            ("touchEnd", []),
        ):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(500)
        return page.evaluate(top) > before + 100

    until(drag_up)
    context.close()


def test_a_click_on_an_anomaly_shows_its_surroundings_and_a_refresh_keeps_them(page, address):
    page.goto(f"{address}/?tab=ML+Anomaly+Detection&refresh=5s&range=1h")
    table = page.locator('[data-testid="stDataFrame"]').first
    table.wait_for()
    page.wait_for_timeout(1000)
    box = table.bounding_box()
    page.mouse.click(box["x"] + 14, box["y"] + 50)  # the box before the first row
    around = page.get_by_label("around 20").first
    around.wait_for()
    told = around.get_attribute("aria-label")
    page.wait_for_timeout(6000)
    assert around.is_visible()
    assert around.get_attribute("aria-label") == told
