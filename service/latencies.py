"""How long readings take, for the heartbeat."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt


class RecentLatencies:
    """Latencies since the last look, from a bounded sample of each batch."""

    _PER_BATCH = 200

    def __init__(self) -> None:
        self._samples: deque[npt.NDArray[np.floating[Any]]] = deque(maxlen=100)

    def add(self, milliseconds: npt.NDArray[np.floating[Any]]) -> None:
        """Take in the latencies of one batch, milliseconds."""
        if len(milliseconds):
            self._samples.append(milliseconds[:: -(-len(milliseconds) // self._PER_BATCH)])

    def percentiles_ms(self) -> dict[str, int]:
        """Return p50 and p99 in milliseconds, or nothing if nothing came."""
        if not self._samples:
            return {}
        p50, p99 = np.percentile(np.concatenate(self._samples), [50, 99])
        return {"latency_ms_p50": round(p50), "latency_ms_p99": round(p99)}

    def reset(self) -> None:
        """Forget what was taken in."""
        self._samples.clear()
