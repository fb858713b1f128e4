"""The admin panel on fakeredis: who comes in, what is shown, what may be changed."""

import html
import os
import re
import stat
import time

import msgspec
import pytest
import redis
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from tests import routes
from tests.conftest import sign_in_as_admin
from webapp import keys
from webapp.admin import names, sign_in
from webapp.keys import Family
from webapp.settings import Settings

HTMX = {"HX-Request": "true"}
PRODUCT = "rpl:catalog:product:{1042}"
ONE = f"/admin/keys/key?key={PRODUCT}"
SECRET = Family(
    page="vault",
    part="session",
    group="digest",
    type="string",
    holds="what nobody should read",
    ttl_ms=60_000,
    role="cache",
    secret=True,
)
CANARY = "canary-3f09ab77"
HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}\u202e\n\x1b[31m"


@pytest.fixture
def cache(app: Flask) -> redis.Redis:
    client: redis.Redis = app.extensions["clients"].cache
    return client


@pytest.fixture
def secret_key(cache: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> str:
    """A key of a secret family, with a canary in its value."""
    monkeypatch.setattr(keys, "FAMILIES", (*keys.FAMILIES, SECRET))
    name = f"rpl:vault:session:{{{'ab' * 32}}}"
    cache.set(name, CANARY, px=50_000)
    return name


def _with(app: Flask, **changed: object) -> None:
    settings: Settings = app.extensions["settings"]
    app.extensions["settings"] = msgspec.structs.replace(settings, **changed)


def _routes(app: Flask) -> list[tuple[str, str]]:
    """Every route of the panel that needs an admin."""
    open_ = {"admin.sign_in", "admin.enter"}
    return [
        (route.method, route.path)
        for route in routes.routes(app)
        if route.path.startswith("/admin") and route.endpoint not in open_
    ]


def _form(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, f"no field {name}"
    return html.unescape(found[1])


# ---- who comes in ----


def _forged(client: FlaskClient) -> None:
    client.set_cookie("admin", "abc.def.ghi")


def _idle(client: FlaskClient) -> None:
    with time_machine.travel(time.time() - 16 * 60, tick=False):
        sign_in_as_admin(client)


def _too_old(client: FlaskClient) -> None:
    sign_in_as_admin(client)
    folder = client.application.extensions["settings"].instance_path / "admin_sessions"
    began = time.time() - sign_in.LONGEST_S - 1
    for file in folder.iterdir():
        os.utime(file, (began, began))


def _signed_out(client: FlaskClient) -> None:
    sign_in_as_admin(client)
    cookie = client.get_cookie("admin")
    assert cookie is not None
    client.post("/admin/logout")
    client.set_cookie("admin", cookie.value)


def _guest(client: FlaskClient) -> None:
    client.post("/api/session/guest")
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"


def _shopper(client: FlaskClient) -> None:
    client.post("/sessions/register", data={"username": "admin", "password": "x" * 9})
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"


@pytest.mark.parametrize(
    "arrive", [None, _guest, _shopper, _forged, _idle, _too_old, _signed_out]
)
def test_every_route_of_the_panel_refuses_all_but_admins(
    app: Flask, client: FlaskClient, cache: redis.Redis, arrive: object
) -> None:
    """G8 in full."""
    cache.set(PRODUCT, CANARY, px=1000)
    if callable(arrive):
        arrive(client)
    found = _routes(app)
    assert len(found) >= 9
    for method, path in found:
        for headers in ({}, HTMX, {"Accept": "application/json"}):
            answer = client.open(path, method=method, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["Cache-Control"] == "no-store"
            assert CANARY not in answer.text
            assert PRODUCT not in answer.text


def test_no_route_of_the_panel_changes_anything_unconfirmed(
    app: Flask, admin: FlaskClient, cache: redis.Redis
) -> None:
    """G8: typing what it is about confirms a change, as DESIGN.md has it."""
    cache.set(PRODUCT, CANARY, px=60_000)
    form = {"key": PRODUCT, "all": "", "pattern": "*", "expected": "1", "ttl_s": "1"}
    for method, path in [*_routes(app), ("POST", "/admin/keys/expire")]:
        if method != "GET" and path != "/admin/logout":
            assert admin.open(path, method=method, data=form).status_code != 401
    assert cache.get(PRODUCT) == CANARY.encode()
    assert cache.pttl(PRODUCT) > 50_000
    assert app.extensions["clients"].durable.keys("rpl:admin:*") == []


def test_signing_in_again_ends_the_session_before(
    app: Flask, admin: FlaskClient
) -> None:
    """G1: a new id, and the old one is dead."""
    before = admin.get_cookie("admin")
    sign_in_as_admin(admin)
    after = admin.get_cookie("admin")
    assert before is not None
    assert after is not None
    assert before.value != after.value
    thief = app.test_client()
    thief.set_cookie("admin", before.value)
    assert thief.get("/admin/record").status_code == 401
    assert admin.get("/admin/record").status_code == 200


def test_an_admin_is_let_into_every_page(app: Flask, admin: FlaskClient) -> None:
    for method, path in _routes(app):
        if method == "GET" and path != "/admin":
            answer = admin.get(path, query_string={"key": "rpl:x"})
            assert answer.status_code in (200, 404), path
            assert answer.headers["Cache-Control"] == "no-store"


def test_the_link_works_once_and_a_look_at_it_does_not_use_it(
    app: Flask, client: FlaskClient
) -> None:
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    for _ in range(2):
        assert token in client.get(f"/admin/login?token={token}").text
    assert client.post("/admin/login", data={"token": token}).status_code == 303
    again = app.test_client().post("/admin/login", data={"token": token})
    assert again.status_code == 401
    assert "Set-Cookie" not in again.headers


def test_another_start_makes_the_link_before_useless(
    app: Flask, client: FlaskClient
) -> None:
    instance = app.extensions["settings"].instance_path
    before = sign_in.offer_link(instance)
    sign_in.offer_link(instance)
    assert client.post("/admin/login", data={"token": before}).status_code == 401


def test_what_is_kept_of_link_and_session_lets_nobody_in(
    app: Flask, admin: FlaskClient
) -> None:
    instance = app.extensions["settings"].instance_path
    token = sign_in.offer_link(instance)
    link = instance / "admin_link"
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    assert token not in link.read_text()
    (session,) = (instance / "admin_sessions").iterdir()
    cookie = admin.get_cookie("admin")
    assert cookie is not None
    assert session.name not in cookie.value


def test_the_cookie_is_for_this_site_alone_and_out_of_reach_for_scripts(
    app: Flask, client: FlaskClient
) -> None:
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    answer = client.post(
        "/admin/login", data={"token": token}, base_url="https://localhost"
    )
    flags = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Secure", "SameSite=Strict"} <= set(flags.split("; "))


def test_a_session_stays_open_while_it_is_used(admin: FlaskClient) -> None:
    began = time.time()
    for minutes in (14, 28, 42):
        with time_machine.travel(began + minutes * 60, tick=False):
            assert admin.get("/admin/record").status_code == 200


def test_with_a_password_only_the_password_opens(
    app: Flask, client: FlaskClient
) -> None:
    _with(app, admin_password="correct horse")
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    for wrong in ({"token": token}, {"password": ""}, {"password": "correct hors"}):
        assert client.post("/admin/login", data=wrong).status_code == 401
    right = client.post("/admin/login", data={"password": "correct horse"})
    assert right.status_code == 303


def test_after_five_wrong_passwords_the_right_one_has_to_wait(
    app: Flask, client: FlaskClient
) -> None:
    _with(app, admin_password="correct horse")
    for _ in range(5):
        client.post("/admin/login", data={"password": "guess"})
    answer = client.post("/admin/login", data={"password": "correct horse"})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    elsewhere = client.post(
        "/admin/login",
        data={"password": "correct horse"},
        environ_base={"REMOTE_ADDR": "10.0.0.9"},
    )
    assert elsewhere.status_code == 303


def test_beyond_loopback_without_a_password_the_panel_is_off(
    app: Flask, client: FlaskClient
) -> None:
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    _with(app, host="0.0.0.0")
    for method, path in [*_routes(app), ("GET", "/admin/login")]:
        answer = client.open(path, method=method)
        assert answer.status_code == 404
        assert "The admin panel is off" in answer.text
    off = client.post("/admin/login", data={"token": token})
    assert off.status_code == 404


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example", "/admin/\\evil", "/", "x"]
)
def test_signing_in_leads_to_no_other_site(
    app: Flask, client: FlaskClient, wanted: str
) -> None:
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    answer = client.post("/admin/login", data={"token": token, "wanted": wanted})
    assert answer.headers["Location"] == "/admin/keys"


def test_signing_in_leads_to_the_page_that_was_wanted(
    app: Flask, client: FlaskClient
) -> None:
    asked = client.get("/admin/memory?role=durable").text
    wanted = _form(asked, "wanted")
    token = sign_in.offer_link(app.extensions["settings"].instance_path)
    answer = client.post("/admin/login", data={"token": token, "wanted": wanted})
    assert answer.headers["Location"] == "/admin/memory?role=durable"


def test_the_panel_is_in_the_navigation_of_admins_only(
    client: FlaskClient, admin: FlaskClient
) -> None:
    assert 'href="/admin' not in client.get("/").text
    assert 'href="/admin/keys"' in admin.get("/").text


def test_keys_on_pages_and_on_the_tape_lead_admins_to_the_key(
    client: FlaskClient, admin: FlaskClient
) -> None:
    client.get("/catalog/1042")
    for browser, is_linked in ((client, False), (admin, True)):
        panel = browser.get("/catalog/keys?ids=1042", headers=HTMX).text
        links = re.findall(r'class="key"[^>]*href="/admin/keys/key', panel)
        assert bool(links) is is_linked
        taped = browser.get("/catalog/1042", headers=HTMX).text
        assert ('class="k" href="/admin/keys/key' in taped) is is_linked


# ---- what is shown ----


def test_opening_the_page_scans_nothing(admin: FlaskClient) -> None:
    page = admin.get("/admin/keys").text
    assert "Nothing is scanned yet" in page
    assert "SCAN" not in page


def test_a_scan_shows_keys_with_family_and_owner_page(
    admin: FlaskClient, client: FlaskClient
) -> None:
    client.get("/catalog/1042")
    page = admin.get("/admin/keys?pattern=*{1042}", headers=HTMX).text
    row = next(
        r for r in page.split("<tr") if "product:</span>" in r or "{1042}</" in r
    )
    assert '<a href="/catalog">catalog</a>, product' in row
    assert 'data-ttl-ms="' in row
    assert "UTC" in row
    assert "pill--no" not in row
    assert re.search(r"Scanned (\d+) of \1 keys?, 1 match", page)


@pytest.mark.usefixtures("imitation")  # a Cluster asks each primary
def test_a_page_of_keys_costs_two_round_trips_and_says_so(
    admin: FlaskClient, client: FlaskClient
) -> None:
    for number in range(1, 8):
        client.get(f"/catalog/{number}")
    page = admin.get("/admin/keys?pattern=rpl:*", headers=HTMX).text
    shown = page.count("<tr data-ttl-ms")
    assert shown >= 7
    assert f"These reads cost 2 round trips, {2 + 4 * shown} commands" in page


@pytest.mark.parametrize(
    ("name", "kind", "ttl_ms", "marked"),
    [
        ("rpl:catalog:product:{1}", "string", None, "no TTL"),
        ("rpl:catalog:lease:{1}", "string", 60_000, "TTL too long"),
        ("rpl:catalog:nothing:{1}", "string", 1000, "unknown family"),
        ("rpl:loose", "string", 1000, "unknown family"),
        ("rpl:catalog:product:{2}", "list", 1000, "not a string"),
    ],
)
def test_a_broken_contract_is_marked(
    admin: FlaskClient,
    cache: redis.Redis,
    name: str,
    kind: str,
    ttl_ms: int | None,
    marked: str,
) -> None:
    _ = cache.set(name, "x") if kind == "string" else cache.lpush(name, "x")
    if ttl_ms:
        cache.pexpire(name, ttl_ms)
    page = admin.get("/admin/keys?pattern=rpl:*", headers=HTMX).text
    assert f'<span class="pill pill--no">{marked}</span>' in page


def test_a_string_is_shown_up_to_4_kb(admin: FlaskClient, cache: redis.Redis) -> None:
    cache.set(PRODUCT, "x" * 10_000, px=1000)
    page = admin.get(ONE, headers=HTMX).text
    shown = re.search(r'aria-label="Value">(x+)<', page)
    assert shown is not None
    assert len(shown[1]) == 4096
    assert "9.8" in page


def test_a_secret_is_not_read_for_admins_neither(
    admin: FlaskClient, cache: redis.Redis, secret_key: str
) -> None:
    one = admin.get(f"/admin/keys/key?key={secret_key}").text
    scan = admin.get("/admin/keys?pattern=*").text
    assert "A secret. It is not read" in one
    assert "GETRANGE" not in one
    assert "rpl:vault:session:{abababab…}" in html.unescape(scan).replace(
        "</span><span>", ""
    )
    for page in (scan, admin.get("/reference").text, admin.get("/admin/memory").text):
        assert CANARY not in page
        assert "ab" * 32 not in page.partition("<main")[2].partition("</main>")[0]


def test_a_key_of_no_family_beside_a_secret_one_is_not_read(
    admin: FlaskClient, cache: redis.Redis, secret_key: str
) -> None:
    cache.set(f"{secret_key}:copy", CANARY)
    page = admin.get(f"/admin/keys/key?key={secret_key}:copy").text
    assert "A secret. It is not read" in page
    assert CANARY not in page


def test_values_of_other_apps_are_not_read(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set("other:key", CANARY)
    page = admin.get("/admin/keys/key?key=other:key").text
    assert "Values of other apps" in page
    assert CANARY not in page


def test_no_page_holds_a_secret_of_the_app(app: Flask, admin: FlaskClient) -> None:
    settings: Settings = app.extensions["settings"]
    token = sign_in.offer_link(settings.instance_path)
    _with(app, admin_password=CANARY)
    pages = [admin.get(path).text for method, path in _routes(app) if method == "GET"]
    pages += [admin.get(path).text for path in ("/", "/metrics", "/reference", "/nix")]
    pages += [admin.post("/admin/login", data={"password": "guess"}).text]
    for text in pages:
        assert CANARY not in text
        assert settings.secret_key not in text
        assert token not in text


def test_hostile_names_and_values_are_text(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    name = f"rpl:catalog:product:{{{HOSTILE}}}".encode() + b"\xff\xfe"
    cache.set(name, HOSTILE)
    listed = admin.get("/admin/keys?pattern=rpl:*").text
    link = re.search(r'href="(/admin/keys/key[^"]*)" title', listed)
    assert link is not None
    one = admin.get(html.unescape(link[1]))
    assert one.status_code == 200
    for page in (listed, one.text):
        assert "<img src=x" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "{{7*7}}" in page


def test_a_hostile_name_can_be_deleted_by_what_the_page_calls_it(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    name = f"rpl:{HOSTILE}%41".encode() + b"\xff"
    cache.set(name, "x")
    cache.set("rpl:bystander", "x")
    listed = admin.get("/admin/keys?pattern=rpl:*").text
    values = map(html.unescape, re.findall(r'form="bulk" value="([^"]+)"', listed))
    chosen = next(v for v in values if "img" in v)
    form = {"key": chosen, "typed": "1", "expected": "1"}
    assert admin.post("/admin/keys/delete", data=form).status_code == 200
    assert cache.exists(name) == 0
    assert cache.exists("rpl:bystander") == 1


BUSY = ["****", "a*b*c*d*e", "rpl:*:*:*:*", "x" * 129, "*a" * 60]


@pytest.mark.parametrize("pattern", BUSY)
def test_a_pattern_that_could_keep_the_server_busy_gets_400(
    app: Flask, admin: FlaskClient, pattern: str
) -> None:
    asked: list[object] = []
    app.extensions["clients"].cache.connection_pool.get_connection = asked.append
    for path in ("/admin/keys", "/admin/keys/delete/preview", "/admin/keys/delete"):
        if path == "/admin/keys":
            answer = admin.get(path, query_string={"pattern": pattern})
        else:
            answer = admin.post(path, data={"pattern": pattern, "all": "1"})
        assert answer.status_code == 400
    assert not asked


@pytest.mark.parametrize(
    "query",
    ["role=lab", "role=*", "pattern=*&type=hyperlog", "pattern=*&type=%0a",
     "pattern=*&cursor=-1", "pattern=*&cursor=x",
     f"pattern=*&cursor={10**99}",
     "pattern=*&cursor=%D9%A1", "pattern=*&step=0", "pattern=*&step=1001",
     "pattern=*&step=1e3"],
)  # fmt: skip
def test_a_hostile_query_gets_400_and_redis_is_not_asked(
    app: Flask, admin: FlaskClient, query: str
) -> None:
    asked: list[object] = []
    app.extensions["clients"].cache.connection_pool.get_connection = asked.append
    assert admin.get(f"/admin/keys?{query}").status_code == 400
    assert not asked


@pytest.mark.parametrize("key", ["", "x" * 513])
def test_a_key_that_cannot_be_gets_400(admin: FlaskClient, key: str) -> None:
    answer = admin.get("/admin/keys/key", query_string={"key": key})
    assert answer.status_code == 400


def test_a_key_that_is_gone_says_so(admin: FlaskClient) -> None:
    answer = admin.get(ONE)
    assert answer.status_code == 404
    assert f"{PRODUCT} is gone" in answer.text


@pytest.mark.parametrize("path", ["/admin/keys?pattern=*", ONE, "/admin/memory"])
def test_without_redis_the_panel_says_so(
    admin: FlaskClient, redis_down: None, path: str
) -> None:
    answer = admin.get(path)
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.text
    assert "Traceback" not in answer.text


def test_signing_in_and_out_needs_no_redis(
    client: FlaskClient, redis_down: None
) -> None:
    sign_in_as_admin(client)
    assert client.get("/admin/keys").status_code == 200
    assert client.post("/admin/logout").status_code == 303
    assert client.get("/admin/keys").status_code == 401


# ---- what may be changed ----


def _delete(admin: FlaskClient, **form: object) -> int:
    return admin.post("/admin/keys/delete", data=form, headers=HTMX).status_code


def test_a_preview_counts_and_calls_out_keys_without_expiry(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set("rpl:catalog:product:{1}", "x", px=60_000)
    cache.set("rpl:catalog:product:{2}", "x")
    form = {"all": "1", "pattern": "rpl:catalog:*"}
    page = admin.post("/admin/keys/delete/preview", data=form, headers=HTMX).text
    assert "Delete 2 keys" in page
    assert "1 key of them has no expiry." in page
    assert "1 catalog:product" in page
    assert "Type 2 to confirm" in page
    assert "SCAN, then UNLINK, 1 pipeline of at most 100" in page
    assert cache.dbsize() == 2


def test_keys_without_expiry_can_be_left_out(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set("rpl:catalog:product:{1}", "x", px=1000)
    cache.set("rpl:catalog:product:{2}", "x")
    form = {"all": "1", "pattern": "rpl:*", "spare": "1", "typed": "1", "expected": "1"}
    assert _delete(admin, **form) == 200
    assert cache.keys("rpl:catalog:*") == [b"rpl:catalog:product:{2}"]


@pytest.mark.parametrize("typed", ["", "2", "one", "-1"])
def test_nothing_is_deleted_before_the_count_is_typed(
    admin: FlaskClient, cache: redis.Redis, typed: str
) -> None:
    cache.set(PRODUCT, "x", px=1000)
    assert _delete(admin, key=PRODUCT, typed=typed, expected="1") == 422
    assert cache.exists(PRODUCT) == 1


def test_no_more_keys_are_deleted_than_were_confirmed(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    for number in (1, 2, 3):
        cache.set(f"rpl:catalog:product:{{{number}}}", "x", px=5000)
    form = {"all": "1", "pattern": "rpl:*", "typed": "2", "expected": "2"}
    answer = admin.post("/admin/keys/delete", data=form, headers=HTMX)
    assert answer.status_code == 422
    assert "3 keys match now. 2 were confirmed." in answer.text
    assert len(cache.keys("rpl:catalog:*")) == 3


def test_a_deletion_is_recorded_before_it_is_made(
    app: Flask, admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set(PRODUCT, "x", px=5000)
    assert _delete(admin, key=PRODUCT, typed="1", expected="1") == 200
    record = admin.get("/admin/record").text
    assert f"1 key on cache: {PRODUCT}" in html.unescape(record)


def test_without_the_durable_server_nothing_is_changed(
    app: Flask, admin: FlaskClient, cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise redis.ConnectionError("away")

    cache.set(PRODUCT, "x", px=5000)
    monkeypatch.setattr(app.extensions["clients"].durable, "xadd", refuse)
    assert _delete(admin, key=PRODUCT, typed="1", expected="1") == 503
    assert cache.exists(PRODUCT) == 1


FOREIGN = [
    b"other:key", b"rplx:key", b"rpl", b"", b" rpl:key", b"RPL:key", b"rpl\x00:key",
    b"\xffrpl:key", "\u202erpl:key".encode(), b"*rpl:key", b"{rpl:}key", b"r*",
]  # fmt: skip


@pytest.mark.parametrize("action", ["delete", "expire"])
@pytest.mark.parametrize("role", ["cache", "durable"])
@pytest.mark.parametrize("count", [12, pytest.param(600, marks=pytest.mark.slow)])
def test_keys_of_others_are_never_touched(
    app: Flask, admin: FlaskClient, action: str, role: str, count: int
) -> None:
    """J7 with 12 names, by name and by pattern; with 600 in `make test-all`."""
    server: redis.Redis = getattr(app.extensions["clients"], role)
    foreign = [FOREIGN[n % 12] + b"%d" % n * (n >= 12) for n in range(count)]
    for name in foreign:
        server.set(name, "x")
    form = {"role": role, "typed": "1", "expected": "1", "ttl_s": "1"}
    for name in foreign:
        answer = admin.post(
            f"/admin/keys/{action}", data=form | {"key": names.written(name)}
        )
        assert answer.status_code == (403 if name else 400)
    for pattern in ("*", "r*", "*rpl:*", "[!q]*", "rpl?*", "other:*"):
        many = {"all": "1", "pattern": pattern, "typed": "9999", "expected": "9999"}
        admin.post(f"/admin/keys/{action}", data=form | many)
    assert [server.pttl(name) for name in foreign] == [-1] * count


def test_the_record_itself_cannot_be_deleted(
    app: Flask, admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set(PRODUCT, "x", px=5000)
    _delete(admin, key=PRODUCT, typed="1", expected="1")
    audit = "rpl:admin:audit:{log}"
    _delete(admin, role="durable", key=audit, typed="1", expected="1")
    _delete(admin, role="durable", all="1", pattern="rpl:*", typed="1", expected="1")
    assert app.extensions["clients"].durable.exists(audit) == 1


def test_a_ttl_is_set_within_what_its_family_allows(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set(PRODUCT, "x", px=5000)
    form = {"key": PRODUCT, "typed": "1", "expected": "1"}
    for wrong in ("0", "-5", "x", "", "3961", "999999999999"):
        answer = admin.post("/admin/keys/expire", data=form | {"ttl_s": wrong})
        assert answer.status_code == 422, wrong
        assert "From 1 to 3,960 seconds." in answer.text
    assert cache.pttl(PRODUCT) <= 5000
    admin.post("/admin/keys/expire", data=form | {"ttl_s": "60"})
    assert 5000 < cache.pttl(PRODUCT) <= 60_000


def test_a_change_without_scripts_is_a_page(
    admin: FlaskClient, cache: redis.Redis
) -> None:
    cache.set(PRODUCT, "x", px=5000)
    page = admin.post("/admin/keys/delete/preview", data={"key": PRODUCT}).text
    assert "<html" in page
    assert "<dialog" in page
    assert " open" in page


def test_an_unknown_action_gets_404(admin: FlaskClient) -> None:
    assert admin.post("/admin/keys/rename", data={"key": "rpl:x"}).status_code == 404


@pytest.mark.usefixtures("imitation")
def test_where_settings_cannot_be_read_the_page_says_why(admin: FlaskClient) -> None:
    page = admin.get("/admin/eviction").text
    assert "The settings cannot be shown." in page
    form = {"name": "maxmemory", "value": "64"}
    assert admin.post("/admin/eviction/preview", data=form).status_code == 409
