"""The API keeps the contract that its document states."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from schemathesis import Case, GenerationMode


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_keeps_the_contract(app: Flask, mode: GenerationMode) -> None:
    client = app.test_client()
    client.post("/api/session/guest")
    cookie = client.get_cookie("sid")
    assert cookie is not None
    personal = {"Sec-Fetch-Site": "same-origin", "Cookie": f"sid={cookie.value}"}
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not _takes_anything(operation):
            continue

        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=40,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def holds(case: Case) -> None:
            # Signing out with it would leave the edits nothing but refusals.
            signed_in = case.path.startswith("/api/products")
            case.call_and_validate(headers=personal if signed_in else None)

        holds()


def _takes_anything(operation: Any) -> bool:
    """Whether there is something to get wrong."""
    return bool(operation.body) or any(True for _ in operation.iter_parameters())
