"""Score every stored reading with an Isolation Forest per sensor type, each exactly once.

Reads    sensor_readings, as far as the consumer has made them visible
Writes   ml_anomaly_predictions, model_runs; its own state to detector_shards
Promises one prediction per reading through any crash, because the positions move in the same
         transaction, and a restart goes on with the same models, thresholds and histories

Several instances share the sensor types, in sixteen shards; one's are taken over in under 10 s.
"""

from __future__ import annotations

import logging
import math

from config import load_settings_or_exit
from db.connection import DatabaseUnavailable, RowExists, StaleCheckpoint, UnsuitableDatabase
from db.versions import prepare_database
from service.cli import service_parser
from service.leases import Presence
from service.lifecycle import Outage, StopSignal, UserError, one_line, refuse_set_back
from service.runner import Process, run_service, running
from service.scoring import Scoring

log = logging.getLogger("ml_detector")

NAME = "ml_detector"


class _Run:
    """The loop over what has been stored; whatever fails, it begins again from the database."""

    def __init__(self, scoring: Scoring, process: Process, once: bool) -> None:
        self.scoring = scoring
        self.process = process
        self.once = once
        self.outage = Outage("postgresql")
        self.is_prepared = self.is_done = False
        self.refused_row = ""

    def until(self, stop: StopSignal) -> None:
        """Go on until a stop is requested, or, if ``once``, until what was there is scored."""
        while not (stop.requested or self.is_done):
            if self._attempt():
                self._tell()
                if not self.scoring.is_busy:
                    stop.wait(self.scoring.settings.poll_seconds)
        try:
            self.scoring.release()
        except (StaleCheckpoint, RowExists, DatabaseUnavailable) as problem:
            log.warning("state_not_saved reason=%s", one_line(problem))

    def _attempt(self) -> bool:
        """Take a step; when it fails, forget everything that is not in the database."""
        try:
            self._step()
            self.outage.over()
            return True
        except (StaleCheckpoint, RowExists) as problem:
            if isinstance(problem, RowExists):
                refuse_set_back("position in detector_shards", problem, self.refused_row)
                self.refused_row = str(problem)
            log.warning("checkpoint_stale action=reload reason=%s", one_line(problem))
        except UnsuitableDatabase as problem:
            raise UserError(problem) from problem
        except DatabaseUnavailable as problem:
            self.is_prepared = False  # it may have been dropped and created anew
            self.process.stop.wait(self.outage.failed(problem))
        self.scoring.pace(math.inf)
        self.scoring.reset()
        return False

    def _step(self) -> None:
        """Score one portion, where there is one."""
        if not self.is_prepared:
            prepare_database(self.process.database)
            self.is_prepared = True
        self.scoring.share()
        scored = self.scoring.poll()
        self.process.beat.count(scored)
        self.is_done = self.once and not scored and self.scoring.is_done()

    def _tell(self) -> None:
        scoring, beat = self.scoring, self.process.beat
        if beat.due:
            beat.beat(
                lag=scoring.lag,
                anomalies=scoring.anomalies,
                models=scoring.detector.models,
                **scoring.latency.percentiles_ms(),  # type: ignore[arg-type]
            )
            scoring.latency.reset()


def main() -> None:
    """Run until stopped."""
    args = service_parser(__doc__, once="score what is stored up to now, then exit").parse_args()
    settings = load_settings_or_exit()
    presence = Presence(NAME)
    with running(NAME, settings.service, presence) as process:
        scoring = Scoring(settings.detector, process.database, presence)
        _Run(scoring, process, args.once).until(process.stop)
        process.beat.beat("stopped", force=True, anomalies=scoring.anomalies)


if __name__ == "__main__":
    run_service(main)
