"""Apache Kafka without Docker: one KRaft node from its published jars, on plain Java."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka import KafkaException

from broker.topics import admin_client
from local_stack.processes import CHECKOUT, Say, StartFailed, free_port, kill_tree
from local_stack.server import LocalServer

POM = Path(__file__).with_name("pom.xml")
# One copy for the checkout: tests in temporary directories use the same jars.
LIBS = CHECKOUT / ".local" / "kafka" / "libs"
OLDEST_JAVA = 17
MAVEN_DEADLINE_SECONDS = 900.0

SERVER_PROPERTIES = """\
# Written by local_stack/kafka.py at every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
# One node: nothing to replicate to, nobody to wait for.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# A broker that was killed is let in again once its old session is over: 3 s instead of 9.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# A dead service's partitions go to the others after 6 s, under both group protocols.
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
# The default buffer of 128 MiB would take a quarter of the heap.
log.cleaner.dedupe.buffer.size=2097152
"""

LOG4J2 = """\
<!-- Written by local_stack/kafka.py at every start; standard output goes to the log file. -->
<Configuration>
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/></Console>
  </Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


class KafkaImpossible(Exception):
    """Apache Kafka cannot run here; the text says what is missing and how to get it."""


class LocalKafka(LocalServer):
    """A single-node Apache Kafka.

    Parameters
    ----------
    advertised_port : int
        Port that clients are told to connect to, a proxy's say; 0 = ``port``.
    libs : Path
        Kafka's jars; fetched with Maven if they are not there.
    """

    name = "Kafka"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        advertised_port: int = 0,
        libs: Path = LIBS,
        log_path: Path | None = None,
        say: Say = lambda line: None,
    ) -> None:
        super().__init__(directory, port, log_path, say)
        self._advertised_port = advertised_port or self.port
        self.libs = libs
        self._data = self.directory / "data"
        self._properties = self.directory / "server.properties"
        self._log4j2 = self.directory / "log4j2.xml"

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to, host:port."""
        return f"localhost:{self.port}"

    def start(self) -> None:
        """Start on the data and port of before; return when the broker answers.

        Raises
        ------
        KafkaImpossible
            When Java, Maven or the jars cannot be had.
        StartFailed
            When it does not come up; ``PortTaken`` when the port is another program's.
        """
        self._java = find_java()
        super().start()

    def _fetch(self) -> None:
        fetch_jars(self.libs, self.say)

    def _initialise(self) -> None:
        self._write_settings()
        self._format()

    def _command(self) -> list[str]:
        return self._java_command("-Xmx512m", "kafka.Kafka", str(self._properties))

    def _is_ready(self) -> bool:
        admin = admin_client({"bootstrap.servers": f"127.0.0.1:{self.port}"})
        try:
            # Brokers are listed once the controller has let this one in.
            return bool(admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def _complete(self) -> None:
        pass  # topics are made by the services

    def _write_settings(self) -> None:
        self._properties.write_text(
            SERVER_PROPERTIES.format(
                # Backslashes are escapes in a properties file.
                data=self._data.as_posix(),
                port=self.port,
                advertised_port=self._advertised_port,
                controller_port=free_port(),
            ),
            encoding="utf-8",
        )
        self._log4j2.write_text(LOG4J2, encoding="utf-8")

    def _format(self) -> None:
        if (self._data / "meta.properties").exists():
            return
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if cluster_id.startswith("-"):  # would be read as an option
            cluster_id = "A" + cluster_id[1:]
        properties = str(self._properties)
        tool = ("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties)
        status = self._run(self._java_command("-Xmx128m", *tool)).wait()
        if status != 0:
            raise StartFailed(f"formatting Kafka's storage failed, status {status}")

    def _java_command(self, heap: str, *arguments: str) -> list[str]:
        log4j2 = f"-Dlog4j2.configurationFile={self._log4j2}"
        return [self._java, heap, log4j2, "-cp", str(self.libs / "*"), *arguments]


def find_java() -> str:
    """Return the path of a Java that can run Kafka.

    Raises
    ------
    KafkaImpossible
        When there is none, or only an older one.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java")
    wanted = f"Apache Kafka needs Java {OLDEST_JAVA} or newer (Debian: openjdk-17-jre-headless)"
    if java is None:
        raise KafkaImpossible(f"{wanted}, and there is no java here")
    answer = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    )
    major = java_major(answer.stderr)
    if major is None:  # macOS has a java that only says where to get one
        raise KafkaImpossible(f"{wanted}, and {java} is none")
    if major < OLDEST_JAVA:
        raise KafkaImpossible(f"{wanted}, and {java} is Java {major}")
    return java


def java_major(version_text: str) -> int | None:
    """Return the major version in what ``java -version`` says: 17 for 17.0.15, 8 for 1.8.0_402."""
    found = re.search(r'version "(?:1\.)?(\d+)', version_text)
    return int(found[1]) if found else None


def fetch_jars(libs: Path, say: Say) -> None:
    """Copy the jars named in ``pom.xml`` to ``libs``, once for each version of that file.

    Raises
    ------
    KafkaImpossible
        When Maven is missing, or cannot get them.
    """
    stamp = libs / ".pom-sha256"
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaImpossible("Maven (mvn) is needed once to fetch Apache Kafka's jars: install it")
    fresh = libs.with_name(f"{libs.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _run_maven(maven, fresh, say)
        (fresh / ".pom-sha256").write_text(wanted, encoding="utf-8")
        shutil.rmtree(libs, ignore_errors=True)
        fresh.rename(libs)  # whole or not at all, also when two do it at once
    except OSError:
        if not stamp.exists():  # else another one was first with the same
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    say(f"Apache Kafka's {len(list(libs.glob('*.jar')))} jars are in {libs}")


def _run_maven(maven: str, target: Path, say: Say) -> None:
    say("fetching Apache Kafka's jars with Maven (once; about 45 MB) ...")
    command = [maven, "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    log_path = target / "maven.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _watch_maven(process, log_path, say)
    except BaseException:
        kill_tree(process.pid)
        process.wait()
        raise
    output = log_path.read_text(encoding="utf-8", errors="replace")
    log_path.unlink()
    if process.returncode != 0:
        errors = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines()
        raise KafkaImpossible(
            "Maven could not fetch Apache Kafka's jars: " + " ".join(errors[0].split())
        )


def _watch_maven(process: subprocess.Popen[bytes], log_path: Path, say: Say) -> None:
    started_s = reported_s = time.monotonic()
    while process.poll() is None:
        now_s = time.monotonic()
        if now_s - started_s > MAVEN_DEADLINE_SECONDS:
            raise KafkaImpossible(f"Maven did not end within {MAVEN_DEADLINE_SECONDS:g} s")
        if now_s - reported_s > 5:
            reported_s = now_s
            fetched = log_path.read_text(encoding="utf-8", errors="replace").count("Downloaded ")
            say(f"  ... {fetched} files fetched, {now_s - started_s:.0f} s")
        time.sleep(0.1)
