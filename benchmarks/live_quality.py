"""How good the detector and the sensors' own rule are on what the running pipeline has scored.

python -m benchmarks.live_quality [--minutes M]

Reads the injected truth from the headers of the topic's messages, which no service does, and the
verdicts from ml_anomaly_predictions. Writes nothing. Needs readings of a simulated fleet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

from benchmarks.truth import read_truth
from broker.topics import BrokerUnavailable, admin_client, ensure_topic
from config import load_settings_or_exit
from db import predictions
from db.connection import Database, DatabaseUnavailable

METHODS = ("detector", "rule")


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, metavar="M",
        help="how far back to look, minutes (default %(default)g)",
    )  # fmt: skip
    return parser.parse_args()


def evaluate(
    scored: list[tuple[str | None, str | None, tuple[bool, bool]]],
) -> list[dict[str, object]]:
    """Return precision and recall of both methods, by reading and by kind and event.

    Parameters
    ----------
    scored : list
        Per reading: injected kind and event (None = ordinary), verdict of detector and of rule.
    """
    results: list[dict[str, object]] = []
    of_kind = Counter(kind for kind, _, _ in scored if kind)
    events = Counter(kind for kind, _ in {row[:2] for row in scored if row[0]})
    for which, method in enumerate(METHODS):
        flagged = [row for row in scored if row[2][which]]
        hits = Counter(kind for kind, _, _ in flagged if kind)
        caught = Counter(kind for kind, _ in {row[:2] for row in flagged if row[0]})
        true = sum(hits.values())
        precision = true / len(flagged) if flagged else None
        recall = true / sum(of_kind.values()) if of_kind else None
        results.append(
            {
                "method": method,
                "readings": len(scored),
                "anomalies": sum(of_kind.values()),
                "precision": precision,
                "recall": recall,
                "f1": 2 * true / (len(flagged) + sum(of_kind.values())) if of_kind else None,
                "flagged": len(flagged) / len(scored) if scored else None,
                "recall_by_kind": {k: hits[k] / n for k, n in sorted(of_kind.items())},
                "event_recall_by_kind": {
                    k: caught[k] / n for k, n in sorted(events.items(), key=str)
                },
            }
        )
    return results


def main() -> None:
    """Print a JSON line per method."""
    args = parse_args()
    settings = load_settings_or_exit()
    kafka = settings.kafka.client
    try:
        topic = ensure_topic(admin_client(kafka), settings.kafka.topic, settings.kafka.partitions)
        since_ms = round((time.time() - args.minutes * 60) * 1000)
        truth = read_truth(kafka, topic.name, since_ms)
        with Database(settings.service.database_url, "live_quality", read_only=True) as database:
            with database.transaction() as tx:
                begin = {partition: each.begin for partition, each in truth.items()}
                verdicts = predictions.verdicts(tx, topic.topic_id, begin)
    except (BrokerUnavailable, DatabaseUnavailable) as problem:
        sys.stderr.write(f"error: {problem}\n")
        raise SystemExit(1) from problem
    scored = [
        (*truth[partition].injected.get(offset, (None, None)), (detector, rule))
        for partition, offset, detector, rule in verdicts
        if offset < truth[partition].end
    ]
    for result in evaluate(scored):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
