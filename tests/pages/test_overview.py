"""The overview: tiles, simulated shoppers, reset."""

from flask import Flask
from flask.testing import FlaskClient

from webapp.rooms import PAGES
from webapp.shop import shoppers


def test_every_page_has_a_tile_and_a_place_in_the_navigation(
    client: FlaskClient,
) -> None:
    text = client.get("/").text
    for page in PAGES:
        assert text.count(f'href="{page.url}"') >= 2
        assert page.use in text


def test_reset_removes_our_keys_and_nobody_elses(
    app: Flask, client: FlaskClient
) -> None:
    cache = app.extensions["clients"].cache
    cache.set("other:key", "stays")
    client.get("/catalog/1042")
    assert cache.keys("rpl:*")
    client.post("/reset")
    assert cache.keys("rpl:*") == []
    assert cache.get("other:key") == b"stays"


def test_reset_restores_price_and_stock_under_a_newer_version(
    client: FlaskClient, guest: FlaskClient
) -> None:
    before = client.get("/api/products/1042").json
    guest.patch("/api/products/1042", json={"price_cents": 1, "stock": 0})
    client.post("/reset")
    after = client.get("/api/products/1042").json
    assert (after["price_cents"], after["stock"]) == (
        before["price_cents"],
        before["stock"],
    )
    assert after["version"] > before["version"] + 1


def test_the_shoppers_pace_is_kept_for_their_process(
    app: Flask, client: FlaskClient
) -> None:
    instance = app.extensions["settings"].instance_path
    assert client.post("/shoppers", data={"rate": "50"}).status_code == 303
    assert shoppers.read_rate(instance) == 50
    assert client.post("/shoppers", data={"rate": "49"}).status_code == 400
    assert shoppers.read_rate(instance) == 50


def test_outside_demo_mode_neither_is_offered_nor_allowed(
    app: Flask, client: FlaskClient
) -> None:
    import msgspec

    settings = app.extensions["settings"]
    app.extensions["settings"] = msgspec.structs.replace(settings, demo=False)
    assert client.post("/reset").status_code == 403
    assert client.post("/shoppers", data={"rate": "2"}).status_code == 403
