"""What may be set of the pure logic; .env.example says what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta


@dataclass(frozen=True)
class WindowRules:
    """How long windows are, and for how long they take readings; ``*_us``: in microseconds."""

    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    allowed_lateness_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 300
    idle_after_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 30
    out_of_orderness_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 5
    baseline_windows: Annotated[int, Meta(ge=1, le=1000)] = 30
    correlation_windows: Annotated[int, Meta(ge=3, le=1000)] = 30

    @property
    def window_us(self) -> int:
        """Length of a window."""
        return self.window_seconds * 1_000_000

    @property
    def allowed_lateness_us(self) -> int:
        """How long after its end a window takes readings."""
        return self.allowed_lateness_seconds * 1_000_000

    @property
    def out_of_orderness_us(self) -> int:
        """How far the watermark stays behind."""
        return self.out_of_orderness_seconds * 1_000_000


@dataclass(frozen=True)
class DetectorSettings:
    """How the detector works."""

    contamination: Annotated[float, Meta(ge=0.0001, le=0.5)] = 0.05
    training_size: Annotated[int, Meta(ge=50, le=1_000_000)] = 1000
    retrain_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    history_size: Annotated[int, Meta(ge=10, le=10_000)] = 100
    forget_readings: Annotated[int, Meta(ge=100, le=10_000_000)] = 5_000
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 42
    cumulative_types: Annotated[
        str,
        Meta(
            pattern=r"([^,]{1,60}(,[^,]{1,60})*)?", description="sensor types, with commas between"
        ),
    ] = ""
    poll_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 0.25
