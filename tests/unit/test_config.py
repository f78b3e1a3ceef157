"""Settings: validated once, before any start; a wrong one is a line that helps."""

import subprocess
import sys

import pytest

from config import SettingError, Settings, load_settings
from db.settings import with_user, without_password
from service.settings import ServiceSettings
from tests.conftest import CHECKOUT


def test_without_an_environment_all_defaults_hold():
    assert load_settings({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "nonsense", "host:port"),
        ("KAFKA_BOOTSTRAP_SERVERS", "host:99999", "host:port"),
        ("KAFKA_TOPIC", "a b", "characters"),
        ("DATABASE_URL", "postgres://", "postgresql://user:password@host:port/database"),
        ("DATABASE_URL", "mysql://u@h/d", "postgresql://"),
        ("DATABASE_URL", "postgresql://u@h:port/d", "postgresql://"),
        ("WINDOW_SECONDS", "0", "from 1 to 86400"),
        ("WINDOW_SECONDS", "one", "a whole number"),
        ("DETECTOR_CONTAMINATION", "0.9", "from 0.0001 to 0.5"),
        ("DETECTOR_CONTAMINATION", "nan", "a number"),
        ("DETECTOR_HISTORY_SIZE", "9", "from 10 to 10000"),
        ("CUMULATIVE_TYPES", "energy,,water", "sensor types, with commas between"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
        ("LOCAL_KAFKA", "redpanda", "auto, apache, embedded"),
        ("METRICS_PORT", "-1", "from 0"),
        ("RETENTION_DAYS", "-1", "from 0"),
        ("AGGREGATE_RETENTION_DAYS", "30", "RETENTION_DAYS"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name, value, allowed):
    with pytest.raises(SettingError) as caught:
        load_settings({name: value})
    text = str(caught.value)
    assert name in text and value in text and allowed in text and "\n" not in text


def test_aggregates_are_not_to_go_before_what_they_are_made_of():
    keep = {"RETENTION_DAYS": "30", "AGGREGATE_RETENTION_DAYS": "30"}
    assert load_settings(keep).retention.aggregate_retention_days == 30
    with pytest.raises(SettingError, match="AGGREGATE_RETENTION_DAYS=30 is not allowed"):
        load_settings({**keep, "RETENTION_DAYS": "31"})


def test_a_password_is_never_in_the_message():
    with pytest.raises(SettingError) as caught:
        load_settings({"DATABASE_URL": "mysql://user:secret@host/db"})
    assert "secret" not in str(caught.value)
    assert without_password("postgresql://u:p@ss@h/d") == "postgresql://u:***@h/d"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2@host/db",
        "postgresql://user:hun ter2@host/db",
        "postgresql://user:a@hunter2@host/db",
        "postgresql://user:hunter2/db",
        "postgresql://user:%zzhunter2@host/db",
        "postgresql:/user:hunter2@host/db",
        "postgresql://user@host:x/db?sslmode=require&password=hunter2",
        "postgresql://user@host:x/db?password=a&hunter2",
        "host=h user=u password=hunter2",
        "host=h password='hun\\'ter2 x' user=u",
        "host=h PASSWORD = 'hunter2",
        "hunter2",
    ],
)
def test_no_form_of_an_address_shows_its_password(url):
    with pytest.raises(SettingError) as caught:
        load_settings({"DATABASE_URL": url})
    assert "ter2" not in str(caught.value) and "DATABASE_URL" in str(caught.value)
    assert "ter2" not in repr(Settings(service=ServiceSettings(database_url=url)))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h/d",
        "postgres://u:p%40ss@h1:5432,h2:5433/d?target_session_attrs=read-write",
        "postgresql://u:a:b@[::1]:5432/d",
        "postgresql:///d?host=/var/run/postgresql",
        "postgresql://%2Fvar%2Frun/d?password=x",
    ],
)
def test_an_address_as_libpq_takes_it_is_left_as_it_is(url):
    assert load_settings({"DATABASE_URL": url}).service.database_url == url


def test_security_settings_are_handed_through_to_the_client():
    settings = load_settings(
        {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_PASSWORD": "x",
            "KAFKA_SSL_CA_LOCATION": "/c",
        }
    )
    assert settings.kafka.client["security.protocol"] == "SASL_SSL"
    assert settings.kafka.client["ssl.ca.location"] == "/c"
    assert "sasl" not in repr(settings)


def test_the_dashboard_logs_in_as_the_reader_unless_told_otherwise():
    assert "://iot_dashboard:" in Settings().dashboard_url
    assert with_user("postgresql://a:b@h:1/d?x=1", "u", "p/w") == "postgresql://u:p%2Fw@h:1/d?x=1"
    own = "postgresql://h:1/d?user=owner&sslmode=require&password=x"
    assert with_user(own, "u", "p") == "postgresql://u:p@h:1/d?sslmode=require"


@pytest.mark.parametrize("script", ["producer", "consumer", "stream_processor", "ml_detector"])
def test_a_script_ends_with_one_line_and_status_2_before_anything_starts(script, tmp_path):
    (tmp_path / ".env").write_text("WINDOW_SECONDS=0\n")
    ended = subprocess.run(
        [sys.executable, str(CHECKOUT / f"{script}.py")],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "error: WINDOW_SECONDS='0' is not allowed: use a whole number from 1 to 86400"
    ]


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("KAFKA_TOPIC=from_file\nWINDOW_SECONDS=7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_TOPIC", "from_environment")
    settings = load_settings()
    assert (settings.kafka.topic, settings.windows.window_seconds) == ("from_environment", 7)
