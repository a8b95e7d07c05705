"""OpenTelemetry traces, if an endpoint is given: a span a request, with no text in it."""

import time
from typing import Any

from polyvec.errors import MissingExtraError
from polyvec.serve.exchange import Record


class Tracing:
    """Sends spans to a collector, or does nothing."""

    def __init__(self, endpoint: str | None) -> None:
        """Set up the exporter.

        Raises:
            MissingExtraError: An endpoint is given and OpenTelemetry is not installed.
        """
        self._provider: Any = None
        if endpoint is not None:
            self._provider = _provider(endpoint)
            self._tracer = self._provider.get_tracer("polyvec.serve")

    def on_end(self, record: Record) -> None:
        """Write a request's span."""
        if self._provider is None:
            return
        from opentelemetry.trace import SpanKind, StatusCode

        end_ns = time.time_ns()
        span = self._tracer.start_span(
            f"{record.dialect} {record.path}",
            kind=SpanKind.SERVER,
            start_time=end_ns - int(record.seconds * 1e9),
        )
        span.set_attributes(_attributes(record))
        if record.status >= 500:  # what a client did wrong is no error of a server's span
            span.set_status(StatusCode.ERROR)
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(endpoint: str) -> Any:  # noqa: ANN401 (an optional library's type)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError(
            "OpenTelemetry is not installed, and --otlp-endpoint needs it: "
            "pip install 'polyvec[otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "polyvec"}))
    url = f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider


def _attributes(record: Record) -> dict[str, str | int | float]:
    values: dict[str, str | int | float] = {
        "http.route": record.path,
        "http.response.status_code": record.status,
        "polyvec.dialect": record.dialect,
    }
    if record.error is not None:
        values["error.type"] = record.error
    if record.outcome is not None:
        times = record.outcome.timings
        values |= {
            "polyvec.model": record.model,
            "polyvec.role": record.role,
            "polyvec.texts": record.num_texts,
            "polyvec.tokens": record.outcome.num_tokens,
            "polyvec.queue_s": times.queue_s,
            "polyvec.compute_s": times.compute_s,
        }
    return values
