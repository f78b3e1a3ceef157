"""Prometheus metrics: the figures of the heartbeat, on a port, for whoever scrapes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.lifecycle import HeartbeatWriter, UserError

# Every service on its own port above METRICS_PORT, so that one setting serves all on one machine.
PORT_STEPS = {"producer": 0, "consumer": 1, "stream_processor": 2, "ml_detector": 3}


class Metrics(Collector):
    """Hands heartbeats on and keeps the last one for Prometheus, as ``iot_<name>{service=...}``."""

    def __init__(self, service: str, report: HeartbeatWriter) -> None:
        self.service = service
        self.report = report
        self._details: dict[str, Any] = {}

    def __call__(self, state: str, details: dict[str, Any]) -> None:
        """Take in a heartbeat."""
        self._details = details
        self.report(state, details)

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers of the last heartbeat."""
        for name, value in self._details.items():
            if isinstance(value, int | float):
                gauge = GaugeMetricFamily(
                    f"iot_{name}", f"{name} of the service", labels=["service"]
                )
                gauge.add_metric([self.service], value)
                yield gauge


def serve_metrics(service: str, report: HeartbeatWriter, base_port: int) -> HeartbeatWriter:
    """Return a report that also feeds Prometheus on ``base_port`` + the service's step; 0 = off.

    Raises
    ------
    UserError
        When the port is taken.
    """
    if not base_port:
        return report
    metrics = Metrics(service, report)
    registry = CollectorRegistry()
    registry.register(metrics)
    port = base_port + PORT_STEPS[service]
    try:
        start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as problem:
        raise UserError(
            f"METRICS_PORT={base_port}: port {port} for {service} cannot be opened"
            f" ({problem.strerror}); set another"
        ) from problem
    return metrics
