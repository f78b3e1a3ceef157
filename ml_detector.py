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
from db.connection import DatabaseUnavailable, RowExists, StaleCheckpoint
from db.schema import SchemaMismatch, prepare_database
from service.cli import service_parser
from service.leases import Presence
from service.lifecycle import Outage, UserError, one_line, refuse_set_back
from service.runner import Process, run_service, running
from service.scoring import Scoring

log = logging.getLogger("ml_detector")

NAME = "ml_detector"


def run(scoring: Scoring, process: Process, once: bool) -> None:
    """Run until stopped, or, if ``once``, until what was there at the beginning is scored."""
    beat, stop = process.beat, process.stop
    outage = Outage("postgresql")
    is_prepared = is_done = False
    refused_row = ""
    while not (stop.requested or is_done):
        try:
            if not is_prepared:
                prepare_database(process.database)
                is_prepared = True
            scoring.share()
            scored = scoring.poll()
            is_done = once and not scored and scoring.is_done()
            outage.over()
        except (StaleCheckpoint, RowExists) as problem:
            if isinstance(problem, RowExists):
                refuse_set_back("position in detector_shards", problem, refused_row)
                refused_row = str(problem)
            log.warning("checkpoint_stale action=reload reason=%s", one_line(problem))
            scoring.pace(math.inf)
            scoring.reset()
            continue
        except SchemaMismatch as problem:
            raise UserError(problem) from problem
        except DatabaseUnavailable as problem:
            scoring.pace(math.inf)
            scoring.reset()
            stop.wait(outage.failed(problem))
            continue
        beat.count(scored)
        if beat.due:
            beat.beat(
                lag=scoring.lag,
                anomalies=scoring.anomalies,
                models=scoring.detector.models,
                **scoring.latency.percentiles_ms(),  # type: ignore[arg-type]
            )
            scoring.latency.reset()
        if not scoring.is_busy:
            stop.wait(scoring.settings.poll_seconds)
    try:
        scoring.release()
    except (StaleCheckpoint, RowExists, DatabaseUnavailable) as problem:
        log.warning("state_not_saved reason=%s", one_line(problem))


def main() -> None:
    """Run until stopped."""
    args = service_parser(__doc__, once="score what is stored up to now, then exit").parse_args()
    settings = load_settings_or_exit()
    presence = Presence(NAME)
    with running(NAME, settings.service, presence) as process:
        scoring = Scoring(settings.detector, process.database, presence)
        run(scoring, process, args.once)
        process.beat.beat("stopped", force=True, anomalies=scoring.anomalies)


if __name__ == "__main__":
    run_service(main)
