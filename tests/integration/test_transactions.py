"""Nothing between two statements of a transaction grows with the data."""

import gc
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import psycopg2.extensions
import pytest

from broker.reader import PartitionBatch, TopicReader
from broker.topics import admin_client, ensure_topic
from consumer import StoreReadings
from db.connection import Database
from db.offsets import Checkpoint, register_sources
from db.settings import Retention
from db.versions import apply_schema
from pipeline.windows import WindowRules
from service.leases import Presence
from service.stream import COLLECT_OBJECTS
from service.upkeep import Upkeep
from stream_processor import AggregateWindows
from tests.messages import message

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
# At least a page of every statement, and ten times as much.
ROWS = (500, 5_000)
RUNS = 3
FEW_MS = 5


class Stopwatch(psycopg2.extensions.cursor):
    """Notes the longest CPU time of its thread between two statements, seconds."""

    longest_s = 0.0
    ended_s: float | None = None

    def look(self):
        """Note the time since the last statement."""
        if self.ended_s is not None:
            self.longest_s = max(self.longest_s, time.thread_time() - self.ended_s)

    def execute(self, *arguments):
        """Run a statement."""
        self.look()
        super().execute(*arguments)
        self.ended_s = time.thread_time()

    def copy_expert(self, *arguments):
        """Run a COPY."""
        self.look()
        super().copy_expert(*arguments)
        self.ended_s = time.thread_time()


class Watched(Database):
    """A connection whose transactions note the longest gap in them, milliseconds."""

    def __init__(self, url):
        super().__init__(url, "test-watched")
        self.gaps_ms = []

    def _connect(self):
        connection = super()._connect()
        connection.cursor_factory = Stopwatch
        return connection

    @contextmanager
    def transaction(self):
        """Watch a transaction to its end."""
        with super().transaction() as tx:
            yield tx
            tx.look()
            self.gaps_ms.append(tx.longest_s * 1000)


@pytest.fixture
def collected_rarely():
    """Look for cycles as seldom as the services do (service/stream.py)."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_OBJECTS)
    yield
    gc.set_threshold(*before)


@pytest.fixture
def watch(kafka, topic, postgres, collected_rarely):
    """A function that gives batches to a new handler; returns the longest gap, milliseconds."""
    servers = {"bootstrap.servers": kafka}
    admin = admin_client(servers)
    found = ensure_topic(admin, topic, 6)

    def run(make_handler, batches):
        with (
            Watched(postgres()) as database,
            TopicReader(servers, admin, "test", found, "classic", 6) as reader,
        ):
            apply_schema(database)
            database.gaps_ms.clear()
            checkpoint = Checkpoint("stream_processor")
            handler = make_handler(database)

            def start():
                with database.transaction() as tx:
                    sources = register_sources(tx, "c", "t", topic, 1)
                    checkpoint.source_ids = sources
                    handler.start(tx, reader, sources, checkpoint.load(tx, {0: 0}))

            start()
            offset = 0
            for payloads in batches:
                batch = as_batch(payloads, offset)
                offset = batch.next_offset
                changes = handler.compute([handler.prepare(batch)])
                with database.transaction() as tx:
                    checkpoint.advance(tx, handler.store(tx, changes), {})
                handler.committed(changes)
                handler.ticked_s = 0.0
            handler = make_handler(database)
            start()
            return max(database.gaps_ms)

    return run


def as_batch(payloads, offset):
    count = len(payloads)
    now_ms = int((START + timedelta(days=1)).timestamp() * 1000)
    return PartitionBatch(
        0,
        payloads,
        np.arange(offset, offset + count),
        np.full(count, now_ms),
        offset + count,
        False,
    )


def readings(count, second):
    """Return readings of as many sensor types as there are readings."""
    at = (START + timedelta(seconds=second)).isoformat()
    return [message(timestamp=at, sensor_type=f"type-{n}") for n in range(count)]


def processor(database):
    rules = WindowRules(60, 60, out_of_orderness_seconds=0, baseline_windows=1)
    return AggregateWindows(rules, database)


def consumer(_):
    idle = Upkeep("", Retention(), Presence("test"))  # not started
    return StoreReadings(5_000, idle)


def windows_of(count):
    """Return batches that open windows, refine them, close them, make them final, forget them."""
    return [
        readings(count, 0),
        readings(count, 1),
        readings(count, 60),
        readings(1, 900),
        readings(1, 901),
        readings(1, 902),
    ]


def rows_of(count):
    return [readings(count, 0), [b"bad"] * count]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
@pytest.mark.parametrize(
    ("make_handler", "batches"), [(processor, windows_of), (consumer, rows_of)]
)
def test_a_transaction_of_ten_times_as_many_rows_pauses_no_longer(watch, make_handler, batches):
    few, many = (median(watch(make_handler, batches(count)) for _ in range(RUNS)) for count in ROWS)
    assert many < 2 * few or max(few, many) < FEW_MS, f"{few:.1f} ms, {many:.1f} ms"
