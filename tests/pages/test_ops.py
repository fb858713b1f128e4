"""Probes, counts, and the interface document."""

import re

from flask import Flask
from flask.testing import FlaskClient


def test_healthz_answers_without_redis(client: FlaskClient, redis_down: None) -> None:
    assert client.get("/healthz").status_code == 200


def test_readyz_says_that_all_is_up(client: FlaskClient) -> None:
    assert client.get("/readyz").json["status"] == "ready"


def test_readyz_says_which_part_is_down(client: FlaskClient, redis_down: None) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200  # the shop still sells from the database
    assert answer.json["status"] == "degraded"
    assert answer.json["parts"]["cache"] == "down"
    assert answer.json["parts"]["database"] == "up"


def test_metrics_count_what_was_read(client: FlaskClient) -> None:
    client.get("/api/products/11")
    client.get("/api/products/11", headers={"X-Shopper": "1"})
    text = client.get("/metrics").text
    assert 'outcome="miss",room="tag_invalidation",traffic="visitor"' in text
    assert 'outcome="hit",room="tag_invalidation",traffic="shopper"' in text


def test_a_policy_report_is_taken(client: FlaskClient) -> None:
    assert client.post("/csp", data=b'{"csp-report": {}}').status_code == 204


def test_openapi_names_every_api_route(app: Flask, client: FlaskClient) -> None:
    document = client.get("/api/openapi.json").json
    rules = {
        re.sub(r"<(?:product_)?(\w+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
    }
    assert rules == document["paths"].keys() | {"/api/openapi.json"}
