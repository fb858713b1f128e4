"""The API keeps the contract that its document states."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from schemathesis import Case, GenerationMode


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("calls", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_answer_keeps_the_contract(
    app: Flask, mode: GenerationMode, calls: int
) -> None:
    """I1 with 150 calls in each mode; with 10,000 in each in `make test-all`."""
    client = app.test_client()
    client.post("/api/session/guest")
    cookie = client.get_cookie("sid")
    assert cookie is not None
    personal = {"Sec-Fetch-Site": "same-origin", "Cookie": f"sid={cookie.value}"}
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    operations = [
        operation
        for found in schema.get_all_operations()
        if _takes_anything(operation := found.ok()) or mode is GenerationMode.POSITIVE
    ]
    varied = sum(map(_takes_anything, operations))
    examples, made = -(-calls // varied), 0
    for operation in operations:

        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def holds(case: Case) -> None:
            nonlocal made
            made += 1
            # Signing out with it would leave the edits nothing but refusals.
            signed_in = case.path.startswith("/api/products")
            case.call_and_validate(headers=personal if signed_in else None)

        holds()
    assert made >= calls


def _takes_anything(operation: Any) -> bool:
    """Whether there is something to get wrong."""
    return bool(operation.body) or any(True for _ in operation.iter_parameters())
