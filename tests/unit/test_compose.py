"""docker-compose.yml and Dockerfile: valid by the specification, and without the known traps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import compose_spec
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent
APP = {"producer", "consumer", "stream_processor", "ml_detector", "dashboard"}


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def parsed() -> Any:
    text = with_defaults((CHECKOUT / "docker-compose.yml").read_text("utf-8"))
    return compose_spec.PyOptions(apply_merge=True).from_yaml(text)


@pytest.fixture(scope="module")
def compose(parsed: Any) -> dict[str, Any]:
    as_dict: dict[str, Any] = parsed.to_dict()
    return as_dict


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


@pytest.fixture(scope="module")
def kafka(services: dict[str, Any]) -> dict[str, str]:
    return {k: str(v) for k, v in services["kafka"]["environment"].items()}


def test_every_key_and_value_is_one_of_the_specification(parsed: Any) -> None:
    parsed.validate()
    parsed.validate_volumes()


def test_the_validator_would_notice_a_misspelt_key() -> None:
    text = (CHECKOUT / "docker-compose.yml").read_text("utf-8")
    with pytest.raises(ValueError, match="healthchek"):
        compose_spec.PyOptions(apply_merge=True).from_yaml(
            with_defaults(text).replace("healthcheck:", "healthchek:")
        )


def test_without_a_profile_only_the_infrastructure_starts(services: dict[str, Any]) -> None:
    assert {name for name, s in services.items() if not s.get("profiles")} == {"kafka", "postgres"}
    assert {name for name, s in services.items() if s.get("profiles") == ["app"]} == APP
    assert services["mqtt_bridge"]["profiles"] == ["mqtt"]


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:9092:9092", "127.0.0.1:5432:5432", "127.0.0.1:8501:8501"]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    images = {s["image"] for s in services.values() if "build" not in s}
    assert all(re.search(r":\d+\.\d+", image) for image in images)
    base = (CHECKOUT / "Dockerfile").read_text("utf-8").split("FROM ")[1].split()[0]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)


def test_kafka_is_the_version_that_runs_without_docker(services: dict[str, Any]) -> None:
    pom = (CHECKOUT / "local_stack" / "pom.xml").read_text("utf-8")
    version = re.search(r"<kafka.version>(.*)</kafka.version>", pom)
    assert version is not None
    assert services["kafka"]["image"] == f"apache/kafka:{version[1]}"


@pytest.mark.parametrize(
    "name",
    [
        "KAFKA_NODE_ID",
        "KAFKA_PROCESS_ROLES",
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "KAFKA_INTER_BROKER_LISTENER_NAME",
        "KAFKA_CONTROLLER_LISTENER_NAMES",
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "CLUSTER_ID",
    ],
)
def test_kafka_is_given_what_the_image_needs_once_anything_is_set(
    kafka: dict[str, str], name: str
) -> None:
    assert kafka[name]


def test_every_listener_of_kafka_has_a_protocol_and_an_address_to_be_found_at(
    kafka: dict[str, str],
) -> None:
    listeners = {e.split("://")[0] for e in kafka["KAFKA_LISTENERS"].split(",")}
    advertised = dict(e.split("://") for e in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(e.split(":") for e in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert listeners == protocols.keys()
    assert advertised == {"HOST": "localhost:9092", "DOCKER": "kafka:19092"}
    assert listeners - advertised.keys() == {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    assert kafka["KAFKA_INTER_BROKER_LISTENER_NAME"] in advertised


def test_a_cluster_id_is_sixteen_bytes(kafka: dict[str, str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", kafka["CLUSTER_ID"])


def test_kafka_replicates_nothing_and_creates_no_topic_by_itself(kafka: dict[str, str]) -> None:
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert {v for k, v in kafka.items() if k.endswith(("REPLICATION_FACTOR", "MIN_ISR"))} == {"1"}


def test_the_data_is_in_volumes_where_the_images_want_them(
    services: dict[str, Any], kafka: dict[str, str]
) -> None:
    assert services["kafka"]["volumes"] == [f"kafka-data:{kafka['KAFKA_LOG_DIRS']}"]
    assert not kafka["KAFKA_LOG_DIRS"].startswith("/tmp")
    # postgres:18 refuses a mount at .../data.
    assert services["postgres"]["volumes"][0] == "postgres-data:/var/lib/postgresql"


def test_roles_are_created_with_a_new_volume(services: dict[str, Any]) -> None:
    source, target, mode = services["postgres"]["volumes"][1].split(":")
    assert (CHECKOUT / source).is_file()
    assert (target, mode) == ("/docker-entrypoint-initdb.d/10-roles.sql", "ro")


def test_health_is_what_a_client_would_find(services: dict[str, Any]) -> None:
    assert services["kafka"]["healthcheck"]["test"] == [
        "CMD",
        "/opt/kafka/bin/kafka-broker-api-versions.sh",
        "--bootstrap-server",
        "localhost:9092",
    ]
    check = services["postgres"]["healthcheck"]["test"]
    assert check[:4] == ["CMD", "pg_isready", "-h", "127.0.0.1"]
    assert any("/_stcore/health" in part for part in services["dashboard"]["healthcheck"]["test"])


@pytest.mark.parametrize("name", sorted(APP))
def test_a_service_waits_for_both_servers_and_finds_them(
    services: dict[str, Any], kafka: dict[str, str], name: str
) -> None:
    service = services[name]
    conditions = {k: v["condition"] for k, v in service["depends_on"].items()}
    assert conditions == {"kafka": "service_healthy", "postgres": "service_healthy"}
    servers = service["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
    assert f"DOCKER://{servers}" in kafka["KAFKA_ADVERTISED_LISTENERS"]
    assert "@postgres:5432/iot_db" in service["environment"]["DATABASE_URL"]


@pytest.mark.parametrize("name", sorted(APP))
def test_a_service_runs_its_script_from_the_one_image(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["image"] == "iot-pipeline"
    assert f"{name}.py" in service["command"]
    dockerfile = (CHECKOUT / "Dockerfile").read_text("utf-8")
    assert f"{name}.py" in dockerfile


def test_containers_of_ours_are_nobody_s_root() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text("utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["iot"]


def test_what_the_image_copies_is_in_the_checkout_and_sent_to_the_builder() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text("utf-8").splitlines()
    ignored = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    sources = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    for name in sources:
        assert (CHECKOUT / name).exists(), name
        assert name in sent or (name.endswith(".py") and "*.py" in sent), name
