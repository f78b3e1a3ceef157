"""What the documents say is there: settings, commands, tables, files."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest

import config
from local_stack.bootstrap import COMMANDS
from tests.conftest import CHECKOUT
from tests.walkthrough import Copy, blocks

SETTINGS = [name for name, *_ in config.names()]
DOCUMENTS = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]
SCHEMA = (CHECKOUT / "db" / "schema.sql").read_text("utf-8")
CONTRACT = {
    "sensor_readings": "id sensor_id sensor_type location value timestamp anomaly unit created_at",
    "sensor_aggregates": "id window_start window_end location sensor_type avg_value min_value"
    " max_value stddev_value count_readings anomaly_count statistical_anomalies created_at",
    "ml_anomaly_predictions": "id sensor_id sensor_type location value timestamp is_anomaly"
    " anomaly_score rule_based_anomaly created_at",
}


def read(name):
    return (CHECKOUT / name).read_text("utf-8")


def columns(table):
    body = re.search(rf"CREATE TABLE IF NOT EXISTS {table} \((.*?)\n\)", SCHEMA, re.DOTALL)[1]
    return re.findall(r"^    ([a-z_]+) +[A-Z]", body, re.MULTILINE)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_in_the_example_with_its_default(name):
    [line] = re.findall(rf"^#{name}=(.*)$", read(".env.example"), re.MULTILINE)
    if name != "DASHBOARD_DATABASE_URL":  # its default is made from another
        assert config.load_settings({name: line}) == config.Settings()


def test_a_setting_has_its_meaning_above_it_in_the_example():
    lines = read(".env.example").splitlines()
    for before, line in pairwise(lines):
        if line.startswith("#KAFKA_S") and before.startswith("#KAFKA_S"):
            continue  # handed through to the client together
        if re.match(r"#[A-Z_]+=", line):
            assert re.match(r"# [A-Za-z].*[.;a-z]$", before), line


def test_the_example_names_no_setting_that_does_not_exist():
    named = re.findall(r"^#([A-Z_]+)=", read(".env.example"), re.MULTILINE)
    handed_through = ("KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_", "KAFKA_SSL_")
    assert [n for n in named if n not in SETTINGS and not n.startswith(handed_through)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_in_the_readme_and_the_makefile(command):
    assert f"make {command}" in read("README.md")
    assert command in read("Makefile")


@pytest.mark.parametrize("table", CONTRACT)
def test_the_tables_of_the_contract_have_their_columns(table):
    assert set(CONTRACT[table].split()) <= set(columns(table))


def test_every_column_has_a_comment():
    tables = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+) \((LIKE)?", SCHEMA)
    for table, is_like_another in tables:
        for column in () if is_like_another else columns(table):
            assert re.search(rf"COMMENT ON COLUMN {table}\.{column}\b", SCHEMA), (table, column)
        assert table in read("README.md"), table


@pytest.mark.parametrize("script", ["producer", "consumer", "stream_processor", "ml_detector"])
def test_a_script_explains_itself(script, tmp_path):
    ended = subprocess.run(
        [sys.executable, str(CHECKOUT / f"{script}.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0
    assert "usage:" in ended.stdout and "Writes" in ended.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    "code",
    re.findall(
        r'"((?:not|wrong|bad|missing|out|text|too|future)_\w+)"', read("pipeline/reading.py")
    ),
)
def test_a_reason_is_in_the_data_contract(code):
    assert f"`{code}`" in read("docs/data_contract.md")


def test_every_decision_is_in_their_list():
    for path in (CHECKOUT / "docs" / "decisions").glob("0*.md"):
        [line] = re.findall(
            rf"^\| \[\d+\]\({path.name}\).*$", read("docs/decisions/README.md"), re.M
        )
        is_superseded = "\nSuperseded by" in path.read_text("utf-8")
        assert ("superseded" in line) == is_superseded, path.name


QUOTES = re.findall(
    r"^```\w+\n(?:#|--) ([\w/]+\.\w+)\n(.*?)^```$", read("docs/architecture.md"), re.M | re.DOTALL
)


@pytest.mark.parametrize(("file", "quote"), QUOTES, ids=[file for file, _ in QUOTES])
def test_a_quote_is_what_the_code_says(file, quote):
    # "..." stands for lines left out.
    rest = read(file)
    for part in quote.split("...\n"):
        _, found, rest = rest.partition(part)
        assert found, part


def test_files_that_the_tour_names_are_there():
    known = {path.name for path in CHECKOUT.rglob("*.*") if ".venv" not in path.parts}
    for name in re.findall(r"`(?:\w+/)*(\w+\.(?:py|sql))`", read("docs/architecture.md")):
        assert name in known, name


def test_the_changes_of_the_walk_through_apply_to_the_code_as_it_is(tmp_path):
    # What they do is seen in tests/integration/test_extending.py.
    copy = Copy(tmp_path / "checkout")
    for block in blocks():
        if block.path or block.language == "diff":
            copy.change(block)
