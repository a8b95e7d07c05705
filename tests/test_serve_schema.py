"""The OpenAPI document against the server: made-up requests, good ones and bad ones.

schemathesis finds no 500, and every answer has a status and a shape that the document states.
"""

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from polyvec.serve.app import ROUTES, Route
from tests.live import Live

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
QUICK = settings(
    max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True, deadline=None
)


@pytest.fixture(scope="module")
def document(live: Live) -> Any:
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


@pytest.mark.parametrize("good", [True, False], ids=["as stated", "otherwise"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_request_breaks_it(document: Any, route: Route, good: bool) -> None:
    mode = schemathesis.GenerationMode.POSITIVE if good else schemathesis.GenerationMode.NEGATIVE
    if not good and route.method == "GET":
        pytest.skip("nothing can be wrong in it")
    operation = document[route.path][route.method]

    @QUICK
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


def test_every_dialect_is_documented(live: Live) -> None:
    paths = live.get("/openapi.json").json()["paths"]
    assert {r.path for r in ROUTES} | {"/metrics"} == set(paths)
    body = paths["/v2/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$defs" not in body
    assert body["required"] == ["model", "input_type"]


def test_parts_of_a_path_are_parameters(live: Live) -> None:
    paths = live.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for operation in methods.values():
            stated = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
            assert stated == re.findall(r"{(\w+)}", path)
