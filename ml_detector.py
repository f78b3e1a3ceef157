"""Score every stored reading with an Isolation Forest per sensor type, each exactly once.

Reads    sensor_readings, as far as the consumer has made them visible
Writes   ml_anomaly_predictions, model_runs; its own state to detector_*
Promises one prediction per reading through any crash, because the progress moves in the same
         transaction, and a restart goes on with the same models, thresholds and histories

Several instances share the sensor types.
"""

from __future__ import annotations

import argparse
import logging
import math

from config import Settings, load_settings_or_exit
from db.claims import session_name
from db.connection import Database, DatabaseUnavailable, RowExists
from db.predictions import StaleProgress
from db.schema import SchemaMismatch, prepare_database
from pipeline.detector import DetectorSettings
from service.cli import service_parser
from service.heartbeat import BackgroundReporter
from service.lifecycle import (
    Heartbeat,
    Outage,
    StopSignal,
    UserError,
    instance_name,
    one_line,
    refuse_set_back,
    run_service,
)
from service.logs import setup_logging
from service.metrics import serve_metrics
from service.scoring import Scoring

log = logging.getLogger("ml_detector")

NAME = "ml_detector"


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = service_parser(__doc__)
    parser.add_argument(
        "--once", action="store_true", help="score what is stored up to now, then exit"
    )
    return parser.parse_args()


def detector_settings(settings: Settings) -> DetectorSettings:
    """Return what the settings say of the detector."""
    return DetectorSettings(
        contamination=settings.detector_contamination,
        training_size=settings.detector_training_size,
        retrain_seconds=settings.detector_retrain_seconds,
        history_size=settings.detector_history_size,
        seed=settings.detector_seed,
        forget_readings=settings.detector_forget_readings,
    )


def run(
    scoring: Scoring, database: Database, beat: Heartbeat, stop: StopSignal, once: bool,
    pause_s: float,
) -> None:  # fmt: skip
    """Run until stopped, or caught up if ``once``."""
    outage = Outage("postgresql")
    ready = False
    refused_row = ""
    while not stop.requested:
        try:
            if not ready:
                prepare_database(database)
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
            stop.wait(pause_s)
    try:
        scoring.release(list(scoring.held))
    except (StaleProgress, RowExists, DatabaseUnavailable) as problem:
        log.warning("state_not_saved reason=%s", one_line(problem))


def main() -> None:
    """Run until stopped."""
    args = parse_args()
    settings = load_settings_or_exit()
    setup_logging(NAME, settings.log_level, settings.log_format)
    stop = StopSignal().install()
    instance = instance_name()
    database = Database(settings.database_url, session_name(instance))
    reporter = BackgroundReporter(settings.database_url, NAME, instance, database)
    with database, reporter:
        beat = Heartbeat(serve_metrics(NAME, reporter, settings.metrics_port))
        scoring = Scoring(detector_settings(settings), database, instance)
        run(scoring, database, beat, stop, args.once, settings.detector_poll_seconds)
        beat.beat("stopped", force=True, anomalies=scoring.anomalies)


if __name__ == "__main__":
    run_service(main)
