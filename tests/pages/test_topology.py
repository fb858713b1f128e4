"""Topology: servers, pools, slots, and what a failover may harm."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis.crc import key_slot

from webapp import keys
from webapp.connection.roles import Clients, pools_of
from webapp.experiments.topology import EXPERIMENTS
from webapp.http import pools
from webapp.live.nodes import Node, NodeMap, one_primary
from webapp.live.vitals import VitalsNow

HTMX = {"HX-Request": "true"}


def test_the_page_names_each_role_and_its_server(client: FlaskClient) -> None:
    page = client.get("/topology").text
    for role in ("cache", "durable"):
        assert f"<b>{role}</b>" in page


def test_after_a_failover_the_strip_tells_who_serves(app: Flask) -> None:
    nodes = [Node(address="a:2", role="primary", up=True, slots=[(0, 16_383)])]
    nodes += [Node(address="a:1", role="primary", up=False)]
    maps = [NodeMap(kind="cluster", roles=["cache"], nodes=nodes)]
    frame = app.jinja_env.get_template("topology/_live.html").render(
        vitals=VitalsNow(at=datetime.now(UTC), maps=maps), oob=True
    )
    _, _, served = frame.partition('id="topology-served"')
    assert 'hx-swap-oob="outerMorph"' in served
    assert "a:2" in served
    assert "a:1" not in served


@pytest.mark.parametrize(
    ("named_is_up", "roles"),
    [(True, ["primary", "replica"]), (False, ["primary", "primary"])],
)
def test_a_killed_primary_that_is_back_is_none_beside_its_successor(
    named_is_up: bool, roles: list[str]
) -> None:
    """Unless that one is away: then the other may be the next."""
    named = Node(address="a:1", role="primary", up=named_is_up)
    other = Node(address="a:2", role="primary", up=True)
    assert [node.role for node in one_primary([named, other], named="a:1")] == roles


def test_each_pool_is_drawn_with_its_limit(app: Flask, client: FlaskClient) -> None:
    clients: Clients = app.extensions["clients"]
    page = client.get("/topology").text
    for _, redis_client in clients.items():
        for pool in pools_of(redis_client):
            assert f"{pool.max_connections} at most" in page


def test_a_pool_counts_who_has_a_connection_and_who_waits(app: Flask) -> None:
    clients: Clients = app.extensions["clients"]
    clients.durable.ping()
    pool = pools_of(clients.durable)[0]
    pools.sample(clients)
    taken = [pool.get_connection() for _ in range(3)]
    node = pool.connection_class.node
    now = {p.node: p for p in pools.sample(clients)}[node]
    for connection in taken:
        pool.release(connection)
    later = [{p.node: p for p in pools.sample(clients)}[node] for _ in range(2)]
    assert now.in_use == 3
    assert [p.in_use for p in later] == [3, 0]  # the most since the last sample
    assert later[1].idle >= 3
    assert now.waits == 0


def test_keys_that_are_there_are_marks_on_the_strip(client: FlaskClient) -> None:
    client.get("/catalog/1042")
    page = client.get("/topology").text
    shown = re.search(r'aria-label="catalog: (\d+) keys? in (\d+) slots?"', page)
    assert shown is not None
    assert int(shown[1]) >= int(shown[2]) >= 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("rpl:catalog:product:{1042} rpl:catalog:lease:{1042}", "one slot"),
        ("rpl:catalog:product:{1042} rpl:catalog:tag:{kitchen}", "CROSSSLOT"),
        ("plain", "What is marked is hashed"),
    ],
)
def test_the_form_says_whether_one_call_may_span_the_keys(
    client: FlaskClient, asked: str, said: str
) -> None:
    part = client.get("/topology/slots", query_string={"keys": asked}, headers=HTMX)
    assert said in part.text
    for name in asked.split():
        assert f"{key_slot(name.encode()):,}" in part.text


def test_a_link_reproduces_the_form(client: FlaskClient) -> None:
    page = client.get("/topology/slots?keys=a{b}c").text
    assert '<b class="hashed">b</b>' in page
    assert "<h1>Topology</h1>" in page


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("a{b}c", "b"),
        ("{b}{c}", "b"),
        ("a{}b{c}", "a{}b{c}"),
        ("a{b", "a{b"),
        ("{{b}}", "{b"),
    ],
)
def test_the_part_that_is_hashed_is_the_one_that_servers_hash(
    key: str, part: str
) -> None:
    start, end = keys.hashed(key)
    assert key[start:end] == part
    assert key_slot(key.encode()) == key_slot(
        part.encode(),
    )


@pytest.mark.parametrize("asked", ["", "   ", "x " * 300, " ".join(map(str, range(9)))])
def test_too_few_or_too_many_keys_get_400(client: FlaskClient, asked: str) -> None:
    answer = client.get("/topology/slots", query_string={"keys": asked})
    assert answer.status_code == 400


def test_hostile_keys_are_text(client: FlaskClient) -> None:
    page = client.get("/topology/slots", query_string={"keys": "<script>{</b>}"}).text
    assert "<script>{" not in page
    assert "&lt;script&gt;" in page


def test_nobody_fails_over_a_server_that_is_not_ours(client: FlaskClient) -> None:
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    answer = client.post("/topology/failover", data={"how": "kill"})
    assert answer.status_code == 403
    assert "Kill the primary" not in client.get("/topology").text


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_card_shows_the_flaw_and_leaves_no_key(
    app: Flask, client: FlaskClient, experiment: Any
) -> None:
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    url = f"/topology/experiments/{experiment.name}"
    part = client.post(url, headers=HTMX).text
    assert "xp__say" in part
    assert "pill--no" in part
    assert 'class="receipt is-new"' in part
    assert app.extensions["clients"].durable.keys("rpl:topology:lab*") == []


def test_a_starved_pool_refuses_exactly_those_who_do_not_hold(
    client: FlaskClient,
) -> None:
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    url = "/topology/experiments/starved-pool"
    part = client.post(url, data={"callers": "6"}, headers=HTMX).text
    assert "Of 6 others, 6 were refused, and 0 with a pool for all." in part


def test_what_a_killed_server_keeps_is_what_it_was_told_to_keep(
    client: FlaskClient,
) -> None:
    """At 2,000 writes; a visitor's click makes 10,000."""
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    url = "/topology/experiments/kill-9"
    part = client.post(url, data={"writes": "2000"}, headers=HTMX).text
    kept = dict(
        re.findall(r"<span>([\w ]+), kept</span>.*?<b[^>]*>([\d,]+)</b>", part, re.S)
    )
    assert kept["No persistence"] == "0"
    assert kept["RDB"] == "1,000"
    assert kept["AOF always"] == "2,000"


def test_an_unknown_card_gets_404(client: FlaskClient) -> None:
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    assert client.post("/topology/experiments/nothing").status_code == 404


@pytest.mark.usefixtures("redis_down")
def test_without_redis_the_page_is_there_and_says_so(client: FlaskClient) -> None:
    answer = client.get("/topology")
    assert answer.status_code == 200
    assert '<span class="pill pill--no">down</span>' in client.get("/topology").text
