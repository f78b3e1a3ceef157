"""The dashboard as people see it: a real browser, a real server, a database that is taken away."""

import os
import shutil
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from urllib.parse import quote

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
CHART = '[data-testid="stVegaLiteChart"] svg'
# A refresh every 5 s, and time to draw it.
REFRESH_MS = 12_000


@pytest.fixture(scope="module")
def postgres_of_its_own(tmp_path_factory):
    """A PostgreSQL that a test may stop."""
    with LocalPostgres(tmp_path_factory.mktemp("browser-postgres"), durable=False) as local:
        yield local


@pytest.fixture(scope="module")
def database_url(postgres_of_its_own):
    from db.connection import Database
    from db.schema import apply_schema

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
    """A page that must not log an error."""
    one = browser.new_page(viewport={"width": 1440, "height": 900})
    problems = []
    one.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
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
        page.locator(CHART).first.wait_for()


def test_a_phone_is_wide_enough(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.locator(CHART).first.wait_for()
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


def test_a_refresh_keeps_charts_zoom_and_scroll(page, address, database_url):
    page.goto(f"{address}/?refresh=5s")
    page.locator(CHART).first.wait_for()
    page.wait_for_timeout(1000)
    chart = page.locator(CHART).first
    chart.scroll_into_view_if_needed()
    page.evaluate("selector => document.querySelector(selector).dataset.mark = 'mine'", CHART)
    whole = chart.text_content()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.down("Shift")
    for _ in range(6):
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(100)
    page.keyboard.up("Shift")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    zoomed = chart.text_content()
    assert zoomed != whole  # the axis tells other times
    scrolled = page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop")
    strip = page.locator(".strip").text_content()
    page.wait_for_function(
        "known => document.querySelector('.strip').textContent !== known",
        arg=strip,
        timeout=REFRESH_MS,
    )
    page.wait_for_timeout(2000)
    assert chart.get_attribute("data-mark") == "mine"  # the same chart, not one like it
    assert chart.text_content() == zoomed
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == scrolled


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
