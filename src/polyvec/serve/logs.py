"""Log lines: one a request, for people or as JSON. No text of a user is ever in them."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from polyvec.serve.exchange import Record

LOG = logging.getLogger("polyvec.serve")


class JsonFormatter(logging.Formatter):
    """A line as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Write time, level, message and the fields of an event."""
        value: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        value |= getattr(record, "fields", {})
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(value, default=str).decode()


class TextFormatter(logging.Formatter):
    """A line for people: time, event, ``name=value`` ..."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        when = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{k}={v}" for k, v in getattr(record, "fields", {}).items())
        line = f"{when} {record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logs(log_format: str) -> None:
    """Write the logs of polyvec and uvicorn to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    for name, level in (("polyvec.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log_request(record: Record) -> None:
    """Write a request's line."""
    fields: dict[str, Any] = {
        "dialect": record.dialect,
        "path": record.path,
        "status": record.status,
        "ms": round(record.seconds * 1000, 1),
    }
    if record.error is not None:
        fields["error"] = record.error
    if record.outcome is not None:
        times = record.outcome.timings
        fields |= {
            "model": record.model,
            "role": record.role,
            "texts": record.num_texts,
            "tokens": record.outcome.num_tokens,
            "truncated": len(record.outcome.cut),
            "tokenize_ms": round(times.tokenize_s * 1000, 1),
            "load_ms": round(times.load_s * 1000, 1),
            "queue_ms": round(times.queue_s * 1000, 1),
            "compute_ms": round(times.compute_s * 1000, 1),
        }
    level = logging.INFO if record.status < 500 else logging.ERROR
    LOG.log(level, "request", extra={"fields": fields})
