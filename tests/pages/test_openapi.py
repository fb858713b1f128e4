"""The API keeps the contract that its document states."""

import hypothesis
import pytest
import schemathesis
from flask import Flask
from schemathesis import Case, GenerationMode
from schemathesis.schemas import APIOperation


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_keeps_the_contract(app: Flask, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 7
    for operation in operations:
        if mode.is_negative and not _takes_anything(operation):
            continue  # nothing about it could be wrong

        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=40,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def holds(case: Case) -> None:
            case.call_and_validate()

        holds()


def _takes_anything(operation: APIOperation) -> bool:
    raw = operation.definition.raw
    return bool({"parameters", "requestBody"} & raw.keys()) or "{" in operation.path
