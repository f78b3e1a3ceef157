"""What a process does when it is told to stop."""

import subprocess
import sys

from tests.conftest import CHECKOUT

# Reads a table over and over; the signal comes in the middle of one of the readings.
READ = """
import os, signal, threading
import pyarrow as pa
from pyarrow import csv
from service.lifecycle import StopSignal
stop, rows = StopSignal().install(), b"a,b\\n" + b"1,2\\n" * 2_000_000
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
while not stop.requested:
    # As the services read: a thread of Arrow's own may outlive the interpreter, and abort then.
    csv.read_csv(pa.BufferReader(rows), csv.ReadOptions(use_threads=False))
raise SystemExit(0)
"""


def test_told_to_stop_in_the_middle_of_reading_a_table_it_finishes_reading():
    done = subprocess.run([sys.executable, "-c", READ], cwd=CHECKOUT, capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")
