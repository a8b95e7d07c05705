"""Prometheus metrics: what came in, how long it took, how full the batches are."""

import os
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from polyvec.serve.batcher import Batch, Batcher, Lane
from polyvec.serve.exchange import Exchanges, Record
from polyvec.serve.models import Models, ServedModel
from polyvec.serve.worker import resident_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
_FILL = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 2.0)


class Metrics:
    """A server's own registry; two servers in a process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "polyvec_requests",
            "Requests answered",
            ["dialect", "path", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "polyvec_request_seconds",
            "From the first byte to the answer",
            ["dialect", "path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "polyvec_queue_seconds", "Waiting for a batch", buckets=_SECONDS, registry=registry
        )
        self.texts = Counter(
            "polyvec_texts", "Texts embedded", ["model", "role"], registry=registry
        )
        self.tokens = Counter(
            "polyvec_tokens", "Tokens of texts embedded", ["model", "role"], registry=registry
        )
        self.truncated = Counter(
            "polyvec_truncated_texts", "Texts that were cut", ["model"], registry=registry
        )
        self.batch_seconds = Histogram(
            "polyvec_batch_seconds",
            "Computing a batch",
            ["lane"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "polyvec_batch_tokens",
            "Tokens of a batch",
            ["lane"],
            buckets=_TOKENS,
            registry=registry,
        )
        self.batch_fill = Histogram(
            "polyvec_batch_fill",
            "Tokens of a batch / its budget",
            ["lane"],
            buckets=_FILL,
            registry=registry,
        )
        self.model_events = Counter(
            "polyvec_model_events",
            "Models loaded, unloaded, lost",
            ["model", "event"],
            registry=registry,
        )

    def on_end(self, record: Record) -> None:
        """Count a request."""
        self.requests.labels(record.dialect, record.path, record.status).inc()
        self.request_seconds.labels(record.dialect, record.path).observe(record.seconds)
        if record.outcome is None:
            return
        self.texts.labels(record.model, record.role).inc(record.num_texts)
        self.tokens.labels(record.model, record.role).inc(record.outcome.num_tokens)
        self.truncated.labels(record.model).inc(len(record.outcome.cut))
        self.queue_seconds.observe(record.outcome.timings.queue_s)

    def on_batch(self, batch: Batch, seconds: float) -> None:
        """Count a batch."""
        self.batch_seconds.labels(batch.lane).observe(seconds)
        self.batch_tokens.labels(batch.lane).observe(batch.tokens)
        self.batch_fill.labels(batch.lane).observe(batch.fill)

    def on_model(self, event: str, model: ServedModel) -> None:
        """Count a model that was loaded, unloaded or lost."""
        self.model_events.labels(model.name, event).inc()

    def watch(self, batcher: Batcher, models: Models, exchanges: Exchanges) -> None:
        """Show what is queued and loaded whenever the metrics are read."""
        self.registry.register(_State(batcher, models, exchanges))

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    def __init__(self, batcher: Batcher, models: Models, exchanges: Exchanges) -> None:
        self.batcher, self.models, self.exchanges = batcher, models, exchanges

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        tokens = GaugeMetricFamily("polyvec_queued_tokens", "In no batch yet", labels=["lane"])
        jobs = GaugeMetricFamily(
            "polyvec_queued_requests", "With texts in no batch", labels=["lane"]
        )
        for lane in get_args(Lane):
            tokens.add_metric([lane], self.batcher.queued_tokens(lane))
            jobs.add_metric([lane], self.batcher.queued_jobs(lane))
        active = GaugeMetricFamily(
            "polyvec_active_requests", "Being answered", value=self.exchanges.active
        )
        loaded = GaugeMetricFamily("polyvec_model_loaded", "1 if it is", labels=["model"])
        memory = GaugeMetricFamily(
            "polyvec_model_memory_bytes", "Resident, of its process", labels=["model"]
        )
        for model in self.models.all:
            loaded.add_metric([model.name], float(model.worker is not None))
            memory.add_metric([model.name], model.memory_bytes)
        own = GaugeMetricFamily(
            "polyvec_server_memory_bytes",
            "Resident, of the server without its models",
            value=resident_bytes(os.getpid()),
        )
        return [tokens, jobs, active, loaded, memory, own]
