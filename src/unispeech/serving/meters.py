"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from unispeech.frames import Seconds

LATENCIES = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of the histogram of latencies, in seconds."""


class Meters:
    """Counters of one server, in a registry of its own.

    Args:
        num_waiting: Gives the tasks that wait for the network.
        num_requests: Gives the requests that have a place.
        num_streams: Gives the open streams.
    """

    def __init__(
        self,
        *,
        num_waiting: Callable[[], int],
        num_requests: Callable[[], int],
        num_streams: Callable[[], int],
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "unispeech_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.latency = Histogram(
            "unispeech_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["route"],
            buckets=LATENCIES,
            registry=registry,
        )
        self.audio = Counter(
            "unispeech_audio_seconds", "Audio that went through the model.", registry=registry
        )
        self.batches = Histogram(
            "unispeech_batch_size",
            "Tasks that ran together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        for name, help_text, count in (
            ("unispeech_waiting", "Tasks that wait for the model.", num_waiting),
            ("unispeech_requests_open", "Requests that are received, waiting or running.", num_requests),
            ("unispeech_streams_open", "Streams that are open.", num_streams),
        ):
            Gauge(name, help_text, registry=registry).set_function(count)

    def count_batch(self, num_tasks: int, seconds: Seconds) -> None:
        """Count what ran together.

        Args:
            num_tasks: How many tasks.
            seconds: Their audio.
        """
        self.batches.observe(num_tasks)
        self.audio.inc(seconds)

    def count_request(self, route: str, status: int, seconds: Seconds) -> None:
        """Count an answer.

        Args:
            route: Path of the route, not of the request: there are only so many.
            status: HTTP status.
            seconds: How long it took.
        """
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)

    def page(self) -> bytes:
        """Write all in Prometheus' text form."""
        return generate_latest(self.registry)
