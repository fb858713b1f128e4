"""The catalog page and the products API, on fakeredis."""

import html
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from webapp.experiments import stampede_lab
from webapp.experiments.stampede_lab import TITLES
from webapp.http.variants import EXPERIMENTS
from webapp.shop import outbox

HTMX = {"HX-Request": "true"}


def _receipts(text: str) -> list[str]:
    return re.findall(r'class="receipt is-new"', text)


def _verdict(text: str) -> str:
    found = re.search(r'data-say="([^",]*)', _own(text))
    assert found
    return found[1]


def _own(text: str) -> str:
    """The receipt of what was asked for, not of what was done beside it."""
    besides = "data-housekeeping", "Tell the feed", "Note the activity"
    receipts = text.split('<li class="receipt')[1:]
    return next(r for r in receipts if not any(mark in r for mark in besides))


def _cli(text: str) -> str:
    return "\n".join(html.unescape(c) for c in re.findall(r'data-cli="([^"]*)"', text))


def _sent(text: str) -> list[str]:
    """The commands of the receipt of what was asked for."""
    return _cli(_own(text)).splitlines()


def test_an_empty_page_offers_a_product_to_open(client: FlaskClient) -> None:
    page = client.get("/catalog").text
    assert "No product is open" in page
    assert "Open Enamel kettle, 1.7 l" in page


def test_the_first_read_is_a_miss_and_the_second_a_hit(client: FlaskClient) -> None:
    first, second = (client.get("/catalog/1042") for _ in range(2))
    assert first.headers["X-Cache"] == "miss"
    assert second.headers["X-Cache"] == "hit"
    assert (_verdict(first.text), _verdict(second.text)) == ("miss", "hit")
    assert "SELECT" in first.text
    assert 'data-ref="db"' not in second.text


def test_hit_and_miss_are_compared_by_what_this_visitor_saw(
    client: FlaskClient,
) -> None:
    assert "times faster" not in client.get("/catalog/1042").text
    assert "times faster" in client.get("/catalog/1042").text


def test_htmx_gets_the_fragment_with_its_receipt(client: FlaskClient) -> None:
    part = client.get("/catalog/1042", headers=HTMX).text
    assert "<html" not in part
    assert "Enamel kettle" in part
    assert len(_receipts(part)) == 1


def test_an_edit_deletes_value_and_lease_and_shows_the_new_price(
    client: FlaskClient, guest: FlaskClient
) -> None:
    client.get("/catalog/1042")
    form = {"price": "39.95", "stock": "7"}
    page = guest.post("/catalog/1042", data=form, headers=HTMX).text
    assert _verdict(page) == "invalidated"
    assert _sent(page) == [
        "DEL rpl:catalog:generation:{products}",
        "DEL rpl:catalog:product:{1042} rpl:catalog:lease:{1042}",
    ]
    assert "39.95" in page
    after = client.get("/catalog/1042")
    assert after.headers["X-Cache"] == "miss"
    assert "39.95" in after.text


def test_a_missing_product_is_404_and_remembered_shortly(client: FlaskClient) -> None:
    assert client.get("/api/products/999999").status_code == 404
    again = client.get("/api/products/999999", headers={"X-Tape": "1"})
    assert again.status_code == 404
    assert client.get("/api/products/999999").status_code == 404


def test_the_list_is_filtered_by_category_and_paged(client: FlaskClient) -> None:
    first = client.get("/api/products?category=lighting&limit=3").json
    assert [item["category"] for item in first["items"]] == ["lighting"] * 3
    second = client.get(first["next"]).json
    assert second["items"][0]["id"] > first["items"][-1]["id"]
    assert "kitchen" not in {item["category"] for item in second["items"]}


def test_the_last_page_has_no_next(client: FlaskClient) -> None:
    assert client.get("/api/products?after=4990&limit=50").json["next"] is None


def test_a_product_has_the_documented_shape(client: FlaskClient) -> None:
    body = client.get("/api/products/7").json
    assert list(body) == [
        "id", "name", "category", "price_cents", "stock", "version", "rating",
        "sales_rank", "bought_with",
    ]  # fmt: skip
    assert list(body["rating"]) == ["count", "average"]
    assert list(body["bought_with"][0]) == ["id", "name"]


def test_json_carries_its_receipt_only_when_asked(client: FlaskClient) -> None:
    plain = client.get("/api/products/7").json
    taped = client.get("/api/products/7", headers={"X-Tape": "1"}).json
    assert "tape" not in plain
    assert taped["data"] == plain
    assert taped["tape"]["round_trips"] == 1
    command = taped["tape"]["trips"][0]["commands"][0]
    assert command["name"] == "EVALSHA"
    assert command["source"].startswith("cache_aside.py:")
    assert command["script"]["name"] == "cache_aside/fetch"


def test_a_receipt_names_the_line_of_the_pattern_that_sent_it(
    client: FlaskClient,
) -> None:
    page = client.get("/catalog/1042").text
    sources = set(re.findall(r'data-source="(cache_aside\.py:\d+)"', page))
    assert len(sources) == 3  # fetch, load, store
    for source in sources:
        assert f'id="line-{source}"' in page


def test_see_inside_lua_shows_the_calls_that_ran(client: FlaskClient) -> None:
    client.set_cookie("inside", "1")
    page = client.get("/catalog/1042", headers=HTMX).text
    assert page.count('class="cmd cmd--in"') == 6  # GET GET SET, GET SET DEL


def test_distance_is_added_to_each_trip_and_marked(client: FlaskClient) -> None:
    client.set_cookie("distance", "20")
    body = client.get("/api/products/7", headers={"X-Tape": "1"}).json
    for trip in body["tape"]["trips"]:
        assert trip["distance_us"] == 20_000
        assert trip["us"] >= 20_000


@pytest.mark.parametrize("value", ["7", "-1", "x", "8000", ""])
def test_distance_takes_only_its_four_steps(client: FlaskClient, value: str) -> None:
    client.set_cookie("distance", value)
    body = client.get("/api/products/7", headers={"X-Tape": "1"}).json
    assert body["tape"]["trips"][0]["distance_us"] == 0


def test_the_keys_of_the_page_are_housekeeping(client: FlaskClient) -> None:
    client.get("/catalog/1042")
    part = client.get("/catalog/keys?ids=1042,1043", headers=HTMX).text
    assert "data-housekeeping" in part
    assert "{1042}" in part
    assert "cached" in part


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_break_it_runs_and_leaves_receipts(
    client: FlaskClient, experiment: Any
) -> None:
    answer = client.post(f"/catalog/experiments/{experiment.name}", headers=HTMX)
    assert answer.status_code == 200
    assert _receipts(answer.text)
    assert "not run yet" not in answer.text


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_break_it_refuses_controls_out_of_bounds(
    client: FlaskClient, experiment: Any
) -> None:
    for control in experiment.controls:
        if control.kind == "range":
            for bad in ("x", "-1", "999999999", ""):
                path = f"/catalog/experiments/{experiment.name}"
                answer = client.post(path, data={control.name: bad}, headers=HTMX)
                assert answer.status_code == 400


def test_without_redis_products_come_from_the_database(
    client: FlaskClient, redis_down: None
) -> None:
    answer = client.get("/catalog/1042")
    assert answer.status_code == 200
    assert answer.headers["X-Cache"] == "bypass"
    assert _verdict(answer.text) == "database"
    assert "Enamel kettle" in answer.text


def test_an_edit_without_redis_is_kept_and_leaves_a_record(
    app: Flask, guest: FlaskClient, cache_down: None
) -> None:
    page = guest.post("/catalog/1042", data={"price": "10.00", "stock": "1"})
    assert page.status_code == 200
    assert _verdict(page.text) == "not invalidated yet"
    left = outbox.pending(app.extensions["catalog"].engine)
    assert [entry.product_id for entry in left] == [1042]


def test_an_edit_with_redis_leaves_no_record(app: Flask, guest: FlaskClient) -> None:
    guest.post("/catalog/1042", data={"price": "10.00", "stock": "1"})
    assert outbox.pending(app.extensions["catalog"].engine) == []


# Variants

VARIANTS = ("write-through", "tag-invalidation")


def _form(price: str = "39.95") -> dict[str, str]:
    return {"price": price, "stock": "7"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_links_of_the_page_keep_variant_and_category(
    client: FlaskClient, variant: str
) -> None:
    query = {"variant": variant, "category": "kitchen"}
    for headers in ({}, HTMX):
        page = client.get("/catalog/1042", query_string=query, headers=headers).text
        shop = page[page.index("shop-title") :]
        links = re.findall(r'(?:href|action)="(/catalog/\d+[^"]*)"', shop)
        forms = [link for link in links if "?" not in link]  # with a hidden field
        assert len(links) > 5
        assert forms == ["/catalog/1042"]
        for link in set(links) - set(forms):
            assert f"variant={variant}" in link
            assert "category=kitchen" in link
    assert f'name="variant" value="{variant}"' in page


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_its_own_words_cards_and_files(
    client: FlaskClient, variant: str
) -> None:
    page = client.get("/catalog", query_string={"variant": variant}).text
    room = variant.replace("-", "_")
    assert f"webapp/patterns/{room}.py" in page
    assert page.count('<form class="xp') == 2
    assert 'aria-current="page">' in page
    assert f"/catalog?variant={variant}" in page


def test_an_unknown_variant_is_404(client: FlaskClient) -> None:
    assert client.get("/catalog?variant=write-back").status_code == 404
    assert client.get("/catalog/1042?variant=write-back").status_code == 404


def test_write_through_voids_the_lists_and_stores_the_new_page_in_one_step(
    client: FlaskClient, guest: FlaskClient
) -> None:
    url = "/catalog/1042?variant=write-through"
    client.get(url)
    page = guest.post(url, data=_form(), headers=HTMX).text
    assert _verdict(page) == "stored"
    assert len(_sent(page)) == 2
    assert "rpl:catalog:product:{1042} rpl:catalog:lease:{1042} 2 " in _sent(page)[1]
    after = client.get(url)
    assert after.headers["X-Cache"] == "hit"
    assert "39.95" in after.text


def test_write_through_without_a_copy_says_so(
    client: FlaskClient, guest: FlaskClient
) -> None:
    url = "/catalog/1042?variant=write-through"
    page = guest.post(url, data=_form(), headers=HTMX).text
    assert _verdict(page) == "not stored"
    assert client.get(url).headers["X-Cache"] == "miss"


def test_write_through_without_redis_keeps_the_edit_and_a_record(
    app: Flask, guest: FlaskClient, cache_down: None
) -> None:
    url = "/catalog/1042?variant=write-through"
    page = guest.post(url, data=_form(), headers=HTMX).text
    assert _verdict(page) == "not invalidated yet"
    assert len(outbox.pending(app.extensions["catalog"].engine)) == 1


def test_the_button_deletes_the_copies_of_the_category(client: FlaskClient) -> None:
    query = {"variant": "tag-invalidation"}
    client.get("/catalog/1042", query_string=query)
    page = client.post("/catalog/1042/invalidate", query_string=query, headers=HTMX)
    assert _verdict(page.text) == "1 key deleted"
    assert "rpl:catalog:tag:{kitchen}" in _cli(page.text)
    again = client.get("/catalog/1042", query_string=query)
    assert again.headers["X-Cache"] == "miss"


def test_the_keys_of_the_tag_variant_have_the_tag(client: FlaskClient) -> None:
    client.get("/catalog/1042?variant=tag-invalidation")
    part = client.get("/catalog/keys?ids=1042&tag=kitchen", headers=HTMX).text
    assert 'data-key="rpl:catalog:tag:{kitchen}"' in part
    assert ">SET<" in part


def test_an_invalidation_without_redis_is_503(
    client: FlaskClient, redis_down: None
) -> None:
    answer = client.post("/catalog/1042/invalidate?variant=tag-invalidation")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


def test_the_api_invalidates_a_category(client: FlaskClient) -> None:
    client.get("/api/products/1042")
    answer = client.post("/api/categories/kitchen/invalidate", json={})
    assert answer.json == {"category": "kitchen", "keys": 1}
    assert client.get("/api/products/1042").headers["X-Cache"] == "miss"


@pytest.mark.parametrize(
    ("slug", "body", "status"),
    [("nothing", {}, 404), ("a b", {}, 400), ("kitchen", {"x": 1}, 400)],
)
def test_the_api_says_what_it_cannot_invalidate(
    client: FlaskClient, slug: str, body: dict[str, int], status: int
) -> None:
    answer = client.post(f"/api/categories/{slug}/invalidate", json=body)
    assert answer.status_code == status


def test_an_edit_through_the_api_is_seen_in_every_variant(
    client: FlaskClient, guest: FlaskClient
) -> None:
    for variant in ("cache-aside", *VARIANTS):
        client.get(f"/catalog/1042?variant={variant}")
    guest.patch("/api/products/1042", json={"price_cents": 4321})
    for variant in ("cache-aside", *VARIANTS):
        assert "43.21" in client.get(f"/catalog/1042?variant={variant}").text


# The list of categories


def test_page_and_api_read_the_list_of_categories_from_redis(
    app: Flask, client: FlaskClient
) -> None:
    first = client.get("/api/categories")
    assert first.headers["X-Cache"] == "miss"
    page = client.get("/catalog").text
    assert "rpl:catalog:list:{categories}" in _cli(page)
    assert "FROM category LEFT JOIN" not in page
    assert client.get("/api/categories").headers["X-Cache"] == "hit"
    choice = page.partition('name="category"')[2].partition("</select>")[0]
    assert len(first.json["items"]) == choice.count("<option") - 1


def test_reset_invalidates_the_list_of_categories(client: FlaskClient) -> None:
    client.get("/api/categories")
    client.post("/reset")
    assert client.get("/api/categories").headers["X-Cache"] == "miss"


@pytest.mark.parametrize("headers", [HTMX, {}], ids=["htmx", "page"])
def test_what_was_asked_for_nothing_is_on_the_tape(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.get("/catalog/999999", headers=headers)
    assert answer.status_code == 404
    assert "EVALSHA" in _sent(answer.text)[0]


def test_the_filter_denies_an_unknown_id_without_a_query(client: FlaskClient) -> None:
    url = "/catalog/{}?variant=bloom-filter"
    client.get(url.format(1042))  # builds the filter
    denied = client.get(url.format(2_000_000_000), headers=HTMX)
    assert "the filter knew, and no query asked for it" in denied.text
    assert client.get(url.format(2_000_000_000)).status_code == 404
    assert _verdict(denied.text) == "not there"
    assert [line.split()[0] for line in _cli(denied.text).splitlines()] == ["BITFIELD"]
    assert "Ask for product" in client.get("/catalog?variant=bloom-filter").text


# Stampede protection


def test_a_product_is_loaded_under_a_lock(client: FlaskClient) -> None:
    url = "/catalog/1042?variant=stampede"
    first, second = client.get(url), client.get(url)
    assert (_verdict(first.text), _verdict(second.text)) == ("miss", "hit")
    sent = _sent(first.text)
    assert {line.split()[0] for line in sent} == {"EVALSHA"}  # a slow load extends it
    assert "rpl:catalog:lease:{1042} rpl:catalog:fence:{1042}" in sent[0]
    assert "rpl:catalog:lease:{1042} rpl:catalog:wake:{1042}" in sent[-1]


def test_the_keys_of_the_lock_are_shown(client: FlaskClient) -> None:
    client.get("/catalog/1042?variant=stampede")
    part = client.get("/catalog/keys?ids=1042&variant=stampede", headers=HTMX).text
    assert 'data-key="rpl:catalog:fence:{1042}"' in part


def _crowd(client: FlaskClient, **form: str) -> Any:
    url = "/catalog/readers?variant=stampede"
    return client.post(url, data={"readers": "10"} | form, headers=HTMX)


def test_readers_at_once_are_drawn_and_two_of_them_are_on_the_tape(
    client: FlaskClient,
) -> None:
    part = _crowd(client, method="lock").text
    assert part.count('class="lane"') == 1
    assert re.search(r"Lock: 10 readers, 1 load, half of them wait at most", part)
    assert len(_receipts(part)) == 3  # one who loads, one who does not, and tidying
    assert "Tidy up: Readers at once" in part


def test_run_all_draws_the_five_methods_beside_each_other(client: FlaskClient) -> None:
    part = _crowd(client, all="1").text
    titles = re.findall(r'<div class="lane">\s*<div>\s*<h3>([^<]+)', part)
    assert titles == list(TITLES.values())
    assert part.count('<th scope="row">') == 5


def test_without_htmx_a_run_is_a_whole_page(client: FlaskClient) -> None:
    url = "/catalog/readers?variant=stampede"
    page = client.post(url, data={"readers": "10", "method": "flight"}).text
    assert "<html" in page
    assert page.count('class="lane"') == 1
    assert '<option value="flight" selected>' in page


@pytest.mark.parametrize(
    "form", [{"method": "luck"}, {"readers": "5"}, {"readers": "201"}, {"readers": "x"}]
)
def test_a_crowd_out_of_bounds_is_refused(
    client: FlaskClient, form: dict[str, str]
) -> None:
    assert _crowd(client, **form).status_code == 400


def test_one_crowd_at_a_time(client: FlaskClient) -> None:
    with stampede_lab._busy:
        answer = _crowd(client)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_a_crowd_without_redis_is_503(client: FlaskClient, redis_down: None) -> None:
    answer = _crowd(client)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


# The response cache


def test_the_second_answer_of_a_list_is_a_hit_with_the_same_etag(
    client: FlaskClient,
) -> None:
    first, second = (client.get("/api/products?limit=3") for _ in range(2))
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert first.data == second.data
    assert first.headers["ETag"] == second.headers["ETag"]
    assert not first.headers["ETag"].startswith("W/")
    assert "no-cache" in first.headers["Cache-Control"]


def test_who_has_the_answer_gets_304_and_no_body(client: FlaskClient) -> None:
    etag = client.get("/api/products?limit=3").headers["ETag"]
    own = {"If-None-Match": f'"other", {etag}'}
    answer = client.get("/api/products?limit=3", headers=own)
    assert (answer.status_code, answer.data) == (304, b"")
    assert answer.headers["ETag"] == etag
    assert answer.headers["X-Cache"] == "hit"
    other = client.get("/api/products?limit=4", headers=own)
    assert other.status_code == 200


def test_order_defaults_and_unknown_parameters_make_no_other_key(
    app: Flask, client: FlaskClient
) -> None:
    for query in (
        "category=kitchen&limit=20",
        "limit=20&category=kitchen",
        "category=kitchen&after=0&utm=x",
        "category=kitchen&category=lighting",
    ):
        client.get(f"/api/products?{query}")
    cache = app.extensions["clients"].cache
    assert len(cache.keys("*catalog:response:*")) == 1


def test_an_edit_voids_every_list(client: FlaskClient, guest: FlaskClient) -> None:
    url = "/api/products?after=1041&limit=1"
    before = client.get(url)
    client.get("/api/products?category=kitchen")
    guest.patch("/api/products/1042", json={"price_cents": 4321})
    after = client.get(url, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert after.headers["X-Cache"] == "miss"
    assert after.json["items"][0]["price_cents"] == 4321
    other = client.get("/api/products?category=kitchen")
    assert other.headers["X-Cache"] == "miss"


def test_a_list_with_its_receipt_has_no_etag(client: FlaskClient) -> None:
    client.get("/api/products?limit=3")
    taped = client.get("/api/products?limit=3", headers={"X-Tape": "1"})
    assert taped.headers["X-Cache"] == "hit"
    assert "ETag" not in taped.headers
    assert taped.json["tape"]["round_trips"] == 1
    assert taped.json["data"] == client.get("/api/products?limit=3").json


def test_without_redis_a_list_comes_from_the_database(
    client: FlaskClient, redis_down: None
) -> None:
    answer = client.get("/api/products?limit=3")
    assert answer.headers["X-Cache"] == "bypass"
    assert len(answer.json["items"]) == 3


def test_a_refused_question_is_not_put_to_redis(
    app: Flask, client: FlaskClient
) -> None:
    for query in ("limit=0", "limit=101", "after=-1", "category=a%20b", "category=no"):
        assert client.get(f"/api/products?{query}").status_code in (400, 404)
    assert app.extensions["clients"].cache.keys("*catalog:response*") == []


def test_the_panel_asks_what_the_api_answers(client: FlaskClient) -> None:
    url = "/catalog/answers?variant=response-cache&category=kitchen&limit=5"
    assert _verdict(client.get(url, headers=HTMX).text) == "miss"
    part = client.get(url, headers=HTMX).text
    assert _verdict(part) == "hit"
    api = client.get("/api/products?category=kitchen&limit=5")
    assert api.headers["X-Cache"] == "hit"
    etag = api.headers["ETag"].strip('"')
    assert f"&#34;{etag}&#34;" in part or f'"{etag}"' in part
    again = client.get(f"{url}&etag={etag}", headers=HTMX).text
    assert "304, not modified" in again
    assert "0&nbsp;B of" in again or "0\u00a0B of" in again
    digest = re.findall(r"answer=([0-9a-f]{32})", again)[0]
    keys = client.get(f"/catalog/keys?answer={digest}", headers=HTMX).text
    assert f"rpl:catalog:response:{{products}}:{digest}" in keys


@pytest.mark.parametrize("headers", [HTMX, {}], ids=["htmx", "page"])
def test_the_panel_refuses_what_the_api_refuses(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    url = "/catalog/answers?variant=response-cache"
    assert client.get(f"{url}&limit=0", headers=headers).status_code == 400
    assert client.get(f"{url}&category=no", headers=headers).status_code == 404
    assert client.get(url, headers=headers).status_code == 200
