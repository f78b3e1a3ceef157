"""How good verdicts are: by reading, by event, by rank, and as the Numenta benchmark counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from benchmarks.detection_methods import Found
from benchmarks.labelled_streams import MINUTE_US, LabelledStream

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Quality:
    """Measures of one method on one stream, all shares; None where there is nothing to measure."""

    method: str
    precision: float | None
    recall: float | None
    f1: float | None
    pr_auc: float | None
    flagged: float
    false_alarms: float
    recall_by_kind: dict[str, float]
    event_recall_by_kind: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the measures by name, rounded to four decimals."""

        def rounded(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: rounded(each) for name, each in value.items()}
            return round(value, 4) if isinstance(value, float) else value

        return {name: rounded(value) for name, value in asdict(self).items()}


def quality(method: str, stream: LabelledStream, found: Found, warmup_minutes: float) -> Quality:
    """Return how good verdicts are after so many minutes of the stream.

    PR-AUC is the average precision of the rank. An event is found when one of its readings is.
    """
    begin = stream.timestamp_us.min() + round(warmup_minutes * MINUTE_US)
    rows = np.flatnonzero(stream.timestamp_us >= begin)
    truth, flagged = stream.label[rows], found.flagged[rows]
    hits = int((truth & flagged).sum())
    kinds = np.array(stream.kind)[rows]
    events = np.array(stream.event)[rows]
    by_kind, by_event = {}, {}
    for kind in sorted(set(kinds[truth].tolist())):
        of_kind = kinds == kind
        by_kind[kind] = float(flagged[of_kind].mean())
        all_events = set(events[of_kind].tolist())
        by_event[kind] = len(set(events[of_kind & flagged].tolist())) / len(all_events)
    is_possible = bool(truth.any())
    return Quality(
        method,
        hits / int(flagged.sum()) if is_possible and flagged.any() else None,
        hits / int(truth.sum()) if is_possible else None,
        2 * hits / int(truth.sum() + flagged.sum()) if is_possible else None,
        float(average_precision_score(truth, found.rank[rows])) if is_possible else None,
        float(flagged.mean()) if len(rows) else 0.0,
        float(flagged[~truth].mean()) if (~truth).any() else 0.0,
        by_kind,
        by_event,
    )


def mean_quality(measured: list[Quality]) -> Quality:
    """Return the means of several measurements of one method."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def by_kind(tables: list[dict[str, float]]) -> dict[str, float]:
        kinds = sorted({kind for table in tables for kind in table})
        return {k: float(np.mean([t[k] for t in tables if k in t])) for k in kinds}

    return Quality(
        measured[0].method,
        mean([q.precision for q in measured]),
        mean([q.recall for q in measured]),
        mean([q.f1 for q in measured]),
        mean([q.pr_auc for q in measured]),
        float(np.mean([q.flagged for q in measured])),
        float(np.mean([q.false_alarms for q in measured])),
        by_kind([q.recall_by_kind for q in measured]),
        by_kind([q.event_recall_by_kind for q in measured]),
    )
