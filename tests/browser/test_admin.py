"""The admin panel as an operator uses it: find a key, watch it end, change settings."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, Launched, newest, serious
from tests.conftest import RedisProcess, Served, wait_until
from webapp.admin import sign_in

pytestmark = pytest.mark.browser

PRODUCT = "rpl:catalog:product:{1042}"
KEY = f"/admin/keys/key?key={PRODUCT}"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def instance(site: Served) -> Path:
    return Path(site.environ["INSTANCE_PATH"])


@pytest.fixture
def admin(page: Page, instance: Path) -> Page:
    """A page that is signed in, at the keys."""
    answer = page.request.post(
        "/admin/login",
        form={"token": sign_in.offer_link(instance)},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.ok
    page.goto("/admin/keys")
    return page


@pytest.fixture
def keys(cache_server: RedisProcess) -> Iterator[None]:
    """Thirty product keys, one of them without expiry."""
    with cache_server.client() as client:
        for number in range(29):
            client.set(f"rpl:catalog:product:{{{number}}}", "x", px=600_000)
        client.set("rpl:catalog:product:{29}", "x")
        yield


def test_an_operator_finds_the_key_of_a_product_and_sees_it_end(
    admin: Page, theme: str
) -> None:
    """Three clicks from the product to its key; then it gets 3 s to live."""
    admin.goto("/catalog/1042")
    admin.locator("#keys a.key").first.click()  # one click
    expect(admin.locator(".keyname")).to_have_text(re.compile(re.escape(PRODUCT)))
    expect(admin.locator("#ttl b")).to_have_text(re.compile(r"^(1:0|5)\d:\d\d"))
    expect(admin.get_by_label("Value")).to_contain_text("Enamel kettle")
    admin.get_by_role("button", name="Set TTL").click()
    dialog = admin.get_by_role("dialog", name="Set the TTL of 1 key")
    expect(dialog.get_by_label("TTL in seconds")).to_be_focused()
    confirm = dialog.get_by_role("button", name="Set the TTL of 1 key")
    expect(confirm).to_be_disabled()
    dialog.get_by_label("TTL in seconds").fill("9")
    dialog.get_by_label("Type 1 to confirm").fill("1")
    confirm.click()
    expect(dialog).to_be_hidden()
    expect(admin.locator("#action")).to_contain_text("1 key with 0:09 to live.")
    expect(newest(admin)).to_contain_text("PEXPIRE")
    expect(admin.locator("#ttl b")).to_have_text(re.compile(r"^0:0\d$"))
    expect(admin.locator("#key")).to_contain_text("is gone")


@pytest.mark.slow
def test_a_key_leaves_the_list_when_its_ttl_ends(
    admin: Page, cache_server: RedisProcess
) -> None:
    with cache_server.client() as client:
        client.set(PRODUCT, "x", px=5000)
    admin.get_by_role("button", name="Scan").click()
    row = admin.locator("#rows tr", has_text="{1042}")
    expect(row).to_be_visible()
    expect(row).to_have_count(0)


def test_a_scan_goes_on_by_itself_and_says_how_far_it_is(
    admin: Page, cache_server: RedisProcess
) -> None:
    with cache_server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(5000):
            pipeline.set(f"other:{number}", "x")
        pipeline.set("rpl:catalog:lease:{7}", "x", px=60_000)
        pipeline.execute()
    admin.get_by_role("searchbox", name="Pattern").fill("rpl:catalog:lease:*")
    admin.get_by_role("button", name="Scan").click()
    status = admin.locator("#scan [role=status]")
    expect(status).to_have_text(re.compile(r"Scanned (5,\d+) of \1 keys, 1 match"))
    expect(admin.locator("#rows tr")).to_have_count(1)
    expect(admin).to_have_url(re.compile("pattern=rpl%3Acatalog%3Alease%3A"))


def test_selected_keys_are_deleted_after_their_count_is_typed(
    admin: Page, keys: None, theme: str
) -> None:
    admin.get_by_role("searchbox", name="Pattern").fill("rpl:catalog:*")
    admin.get_by_role("button", name="Scan").click()
    expect(admin.locator("#rows tr")).to_have_count(30)
    delete = admin.locator("#bulk").get_by_role("button", name="Delete")
    expect(delete).to_be_disabled()
    for box in admin.locator('#rows input[name="key"]').all()[:3]:
        box.check()
    expect(admin.locator("#bulk")).to_contain_text("3 selected")
    delete.click()
    dialog = admin.get_by_role("dialog", name="Delete 3 keys")
    field = dialog.get_by_label("Type 3 to confirm")
    expect(field).to_be_focused()
    confirm = dialog.get_by_role("button", name="Delete 3 keys")
    field.fill("2")
    expect(confirm).to_be_disabled()
    field.fill("3")
    confirm.click()
    expect(admin.locator("#action")).to_contain_text("3 keys.")
    expect(admin.locator("#rows tr", has_text="product")).to_have_count(27)
    expect(newest(admin).locator(".receipt__what")).to_have_text("Delete keys")


def test_keys_without_expiry_are_called_out_and_can_be_left_out(
    admin: Page, keys: None
) -> None:
    admin.goto("/admin/keys?pattern=rpl:catalog:*")
    admin.get_by_label("All of ours that match").check()
    admin.locator("#bulk").get_by_role("button", name="Delete").click()
    dialog = admin.get_by_role("dialog", name="Delete 30 keys")
    expect(dialog).to_contain_text("1 key of them has no expiry.")
    # Not check(): its answer takes the place of the dialog that it would look at.
    dialog.get_by_label("Leave keys without expiry out").click()
    dialog = admin.get_by_role("dialog", name="Delete 29 keys")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()


def test_a_command_on_the_tape_leads_to_its_key(admin: Page) -> None:
    admin.goto("/catalog/1042")
    newest(admin).locator("a.k").first.click()
    expect(admin.locator(".keyname")).to_contain_text(PRODUCT)


def test_a_hostile_key_is_text(admin: Page, cache_server: RedisProcess) -> None:
    with cache_server.client() as client:
        client.set(f"rpl:catalog:product:{{{HOSTILE}}}", HOSTILE, px=60_000)
    admin.get_by_role("searchbox", name="Pattern").fill("rpl:catalog:*")
    admin.get_by_role("button", name="Scan").click()
    admin.locator("#rows a.key").click()
    expect(admin.locator(".keyname")).to_contain_text(HOSTILE)
    expect(admin.get_by_label("Value")).to_have_text(HOSTILE)
    assert admin.locator("img").count() == 0


def test_signing_out_ends_the_session(admin: Page, complaints: Complaints) -> None:
    complaints.expect("status of 401")
    admin.get_by_role("button", name="Sign out").click()
    expect(admin.locator(".nav", has_text="Eviction settings")).to_have_count(0)
    admin.goto("/admin/keys")
    expect(admin.locator("h1")).to_have_text("Sign in as admin")


@pytest.fixture(scope="module")
def offering(launched: Launched) -> Launched:
    """The app after it offered its own link, which would replace another."""
    wait_until((launched.folder / "admin_link").exists)
    return launched


def test_a_limit_is_changed_and_undone(
    page: Page, offering: Launched, theme: str
) -> None:
    page.goto(f"{offering.url}/admin/login?token={sign_in.offer_link(offering.folder)}")
    with page.expect_navigation():
        page.get_by_role("button", name="Sign in").click()
    page.goto(f"{offering.url}/admin/eviction")
    charts = page.locator("#eviction-charts .chart")
    expect(charts).to_have_count(4)
    _set_limit(page, "96")
    expect(page.locator("#settings .stats")).to_contain_text("96 MB")
    page.get_by_role("button", name="Undo").click()
    dialog = page.get_by_role("dialog", name="Change maxmemory")
    expect(dialog).to_contain_text("No limit")
    dialog.get_by_label("to confirm").fill("0B")
    dialog.get_by_role("button", name="Set it").click()
    expect(page.locator("#settings .stats")).to_contain_text("no limit")


def _set_limit(page: Page, megabytes: str) -> None:
    page.get_by_label("maxmemory in MB").fill(megabytes)
    page.get_by_role("button", name="Preview", exact=True).first.click()
    dialog = page.get_by_role("dialog", name="Change maxmemory")
    confirm = dialog.get_by_role("button", name="Set it")
    expect(confirm).to_be_disabled()
    dialog.get_by_label("to confirm").fill(megabytes)
    confirm.click()
    expect(page.locator("#action")).to_contain_text("It was 0.")


PLACES = ["/admin/keys", "/admin/keys?pattern=rpl:*", KEY, "/admin/memory",
          "/admin/eviction", "/admin/record"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_panel_is_accessible(
    admin: Page, keys: None, theme: str, place: str
) -> None:
    admin.request.get("/catalog/1042")
    admin.goto(place)
    assert serious(admin) == []


@pytest.mark.parametrize("place", PLACES)
def test_the_panel_fits_a_phone(admin: Page, keys: None, place: str) -> None:
    admin.request.get("/catalog/1042")
    admin.set_viewport_size({"width": 390, "height": 844})
    admin.goto(place)
    assert admin.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_dialog_is_accessible(admin: Page, keys: None, theme: str) -> None:
    admin.goto("/admin/keys?pattern=rpl:*")
    admin.get_by_label("All of ours that match").check()
    admin.locator("#bulk").get_by_role("button", name="Delete").click()
    expect(admin.get_by_role("dialog")).to_be_visible()
    assert serious(admin) == []


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_a_key_is_found_and_deleted(admin: Page, keys: None) -> None:
    admin.get_by_role("button", name="Scan").click()
    admin.locator("#rows a.key", has_text="{7}").click()
    admin.get_by_role("button", name="Delete").click()
    admin.get_by_label("Type 1 to confirm").fill("1")
    admin.get_by_role("button", name="Delete 1 key").click()
    expect(admin.locator("#action")).to_contain_text("1 key.")
