"""The reference tables, on fakeredis."""

import re
from datetime import datetime

import msgspec
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp import keys, reference
from webapp.keys import FAMILIES
from webapp.live.servers import Server
from webapp.live.vitals import VitalsNow
from webapp.rooms import PAGES
from webapp.settings import Settings


def _row(text: str, first: str) -> str:
    return next(r for r in re.split(r"<tr>\s*", text) if f"<td>{first}</td>" in r)


def _main(text: str) -> str:
    return text.partition("<main")[2].partition("</main>")[0]


def _rows(text: str) -> list[str]:
    bodies = re.findall(r"<tbody>(.*?)</tbody>", _main(text), re.DOTALL)
    return [row for body in bodies for row in body.split("<tr>")[1:]]


def test_every_row_of_every_table_is_there(client: FlaskClient) -> None:
    text = client.get("/reference").text
    rows = [row.name for row in reference.USE_CASES]
    rows += [row.data for row in reference.TTLS]
    rows += [row.name for row in reference.ANTI_PATTERNS]
    rows += [row.name for row in reference.PATTERNS]
    for first in rows:
        assert _row(text, first)
    for policy in reference.POLICIES:
        assert f"<code>{policy.name}</code>" in text


def test_a_row_leads_to_the_page_and_the_live_key_that_play_its_part(
    client: FlaskClient,
) -> None:
    client.get("/catalog/1042")
    row = _row(client.get("/reference").text, "Simple cache")
    assert '<a href="/catalog">Catalog cache</a>' in row
    assert 'title="rpl:catalog:product:{1042}"' in row
    assert re.search(r"(1:0|5)\d:\d\d left", row)


def test_a_row_without_a_live_key_shows_how_its_keys_are_named(
    client: FlaskClient,
) -> None:
    row = _row(client.get("/reference").text, "Simple cache")
    assert "rpl:catalog:product:{&lt;product id&gt;}" in row
    assert "none now" in row


def test_every_row_leads_to_something_live(client: FlaskClient) -> None:
    for row in _rows(client.get("/reference").text):
        assert 'href="/' in row, row


def test_links_lead_to_parts_of_pages_that_exist(client: FlaskClient) -> None:
    text = client.get("/reference").text
    by_page: dict[str, set[str]] = {}
    for link in re.findall(r'href="(/[^"]*)"', _main(text)):
        url, _, part = link.partition("#")
        by_page.setdefault(url, set()).add(part)
    for url, parts in by_page.items():
        answer = client.get(url)
        assert answer.status_code == 200, url
        for part in parts - {""}:
            assert f' id="{part}"' in answer.text, f"{url}#{part}"


def test_a_ttl_that_is_set_here_comes_with_its_reason() -> None:
    for row in reference.TTLS:
        for family in reference.families_of(row.part):
            assert family.ttl_ms
            assert row.reason


def test_every_named_family_of_a_page_that_is_built_exists() -> None:
    built = {page.url.strip("/") for page in PAGES}
    known = {f"{f.page}:{f.part}" for f in FAMILIES}
    for row in (*reference.USE_CASES, *reference.TTLS, *reference.KEY_NAMES):
        if row.part and row.part[0].split(":")[0] in built:
            assert known.intersection(row.part), row


def test_policies_are_marked_with_what_the_server_accepts(
    app: Flask, client: FlaskClient
) -> None:
    assert "not known" in client.get("/reference").text
    settings: Settings = app.extensions["settings"]
    server = Server(
        role="cache",
        up=True,
        policies=["noeviction", "allkeys-lfu"],
        maxmemory_policy="allkeys-lfu",
    )
    now = VitalsNow(at=msgspec.json.decode(b'"2026-01-01T00:00:00Z"', type=datetime))
    vitals = msgspec.structs.replace(now, servers=[server])
    (settings.instance_path / "vitals.json").write_bytes(msgspec.json.encode(vitals))
    text = client.get("/reference").text
    marks = {p.name: _policy(text, p.name) for p in reference.POLICIES}
    assert "accepted" in marks["noeviction"]
    assert "set on cache" in marks["allkeys-lfu"]
    assert "not on this server" in marks["allkeys-lrm"]


def _policy(text: str, name: str) -> str:
    return next(r for r in text.split("<tr>") if f"<td><code>{name}</code></td>" in r)


def test_without_redis_the_tables_are_still_there(
    client: FlaskClient, redis_down: None
) -> None:
    answer = client.get("/reference")
    assert answer.status_code == 200
    assert "Live keys cannot be shown." in answer.text
    assert _row(answer.text, "Simple cache")


def test_no_key_of_a_secret_family_is_named(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = msgspec.structs.replace(keys.PRODUCT, secret=True)
    monkeypatch.setattr(keys, "FAMILIES", (secret,))
    cache: redis.Redis = app.extensions["clients"].cache
    cache.set("rpl:catalog:product:{1042}", "x", px=5000)
    assert "1042" not in client.get("/reference").text
