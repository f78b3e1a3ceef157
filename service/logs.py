"""One log format for all services: an event name, then ``name=value`` pairs."""

from __future__ import annotations

import json
import logging
import sys
import time

from service.settings import ServiceSettings


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO consumer batch_stored rows=200 lag=0``."""

    converter = staticmethod(time.gmtime)  # UTC, like every time in the tables
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {service} %(message)s")


class JsonFormatter(TextFormatter):
    """One JSON object a line with time, level, service and message."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "service": self.service,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def setup_logging(service: str, settings: ServiceSettings) -> None:
    """Send the process's log lines to standard error, as set."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(service))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
