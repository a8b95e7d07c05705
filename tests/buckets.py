"""An S3 server on this machine: moto's, with one request at a time and keys that count.

One at a time, because moto's threads look whether an object exists and write it in two steps, so
that two conditional puts at once could both succeed, which they cannot in S3.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET = "AKIAPOLYVECTEST00000", "s3cr3t/OfTheTeam+0123456789abcdefghijklm"
_REFUSED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code><Message>The AWS '
    b"Access Key Id you provided does not exist in our records.</Message></Error>"
)


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@dataclass
class Buckets:
    """The server."""

    url: str = ""
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _app: Any = None

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            said = environ.get("HTTP_AUTHORIZATION", "")
            if not re.search(rf"Credential={KEY}/", said):
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [_REFUSED]
            return list(self._app(environ, start))

    @property
    def environment(self) -> dict[str, str]:
        """What a program's environment says to use it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def objects(self, bucket: str) -> dict[str, bytes]:
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@contextmanager
def serving() -> Iterator[Buckets]:
    """Serve S3 on a free port of this machine."""
    buckets = Buckets(_app=DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, buckets, threaded=True, request_handler=_Quiet)
    buckets.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield buckets
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
