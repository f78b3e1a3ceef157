"""Score every stored reading with an Isolation Forest per sensor type, each exactly once.

Reads    sensor_readings, as far as the consumer has made them visible
Writes   ml_anomaly_predictions, model_runs; its own state to detector_*
Promises one prediction per reading through any crash, because the progress moves in the same
         transaction, and a restart goes on with the same models, thresholds and histories

Several instances share the sensor types.
"""

from __future__ import annotations

import logging
import math

from config import load_settings_or_exit
from db.claims import session_name
from db.connection import DatabaseUnavailable, RowExists
from db.predictions import StaleProgress
from db.schema import SchemaMismatch, prepare_database
from service.cli import service_parser
from service.lifecycle import Outage, UserError, instance_name, one_line, refuse_set_back
from service.runner import Process, run_service, running
from service.scoring import Scoring

log = logging.getLogger("ml_detector")

NAME = "ml_detector"


def run(scoring: Scoring, process: Process, once: bool) -> None:
    """Run until stopped, or caught up if ``once``."""
    beat, stop = process.beat, process.stop
    outage = Outage("postgresql")
    ready = False
    refused_row = ""
    while not stop.requested:
        try:
            if not ready:
                prepare_database(process.database)
                ready = True
            scoring.share()
            scored = scoring.poll()
            outage.over()
        except (StaleProgress, RowExists) as problem:
            if isinstance(problem, RowExists):
                refuse_set_back("progress in detector_progress", problem, refused_row)
                refused_row = str(problem)
            log.warning("progress_stale action=reload reason=%s", one_line(problem))
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
        scoring.log_rates()
        if beat.due:
            beat.beat(
                lag=scoring.lag,
                anomalies=scoring.anomalies,
                models=scoring.detector.models,
                **scoring.latency.percentiles_ms(),  # type: ignore[arg-type]
            )
            scoring.latency.reset()
        if not scored:
            if once:
                break
            stop.wait(scoring.settings.poll_seconds)
    try:
        scoring.release(list(scoring.held))
    except (StaleProgress, RowExists, DatabaseUnavailable) as problem:
        log.warning("state_not_saved reason=%s", one_line(problem))


def main() -> None:
    """Run until stopped."""
    args = service_parser(__doc__, once="score what is stored up to now, then exit").parse_args()
    settings = load_settings_or_exit()
    instance = instance_name()
    with running(NAME, settings.service, session=session_name(instance)) as process:
        scoring = Scoring(settings.detector, process.database, instance)
        run(scoring, process, args.once)
        process.beat.beat("stopped", force=True, anomalies=scoring.anomalies)


if __name__ == "__main__":
    run_service(main)
