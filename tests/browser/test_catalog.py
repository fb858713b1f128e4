"""The catalog as a newcomer uses it: open, open again, edit, break, understand."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Complaints, newest, serious
from tests.conftest import Served

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)></script><b>{{7*7}}</b>"


def read(page: Page, verdict: str) -> None:
    """Open the product again, and wait for what the tape says."""
    page.get_by_role("link", name="Open again").click()
    expect(newest(page).locator(".pill")).to_have_text(verdict)


def save(page: Page, price: str) -> None:
    page.get_by_role("button", name="Edit price").click()
    page.get_by_label("Price in €").fill(price)
    page.get_by_role("button", name="Save").click()


def run(page: Page, name: str) -> Locator:
    """Run a Break it card, and wait for its result."""
    card = page.locator(f"#xp-{name}")
    card.get_by_role("button", name="Run").click()
    expect(card.locator(".xp__say")).to_be_visible(timeout=10_000)
    return card


def test_a_newcomer_reads_on_the_tape_why_the_second_read_was_faster(
    page: Page, theme: str
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Catalog cache").last.click()
    page.get_by_role("link", name="Open product 1042").click()
    expect(newest(page).locator(".pill")).to_have_text("miss")
    expect(newest(page)).to_contain_text("SELECT")
    expect(page.locator("#say")).to_have_text(re.compile(r"^miss, \d commands, "))
    read(page, "hit")
    expect(newest(page)).not_to_contain_text("SELECT")
    expect(page.locator("#say")).to_have_text(re.compile(r"^hit, 1 command, "))
    expect(page.locator("#served")).to_contain_text("times faster than a miss")


def test_a_bad_price_is_told_at_its_field_and_nothing_typed_is_lost(
    page: Page, guest: None, complaints: Complaints
) -> None:
    complaints.expect("status of 422")
    page.goto("/catalog/1042")
    save(page, "cheap")
    field = page.get_by_label("Price in €")
    expect(field).to_have_value("cheap")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("A price from 0.01"))


def test_a_saved_price_deletes_the_copy_and_the_next_read_is_a_miss(
    page: Page, guest: None, theme: str
) -> None:
    page.goto("/catalog/1043")
    save(page, "39.95")
    expect(newest(page).locator(".pill")).to_have_text("invalidated")
    sent = newest(page).locator(".cmd:not(.cmd--out) b")
    expect(sent).to_have_text(["DEL", "DEL"])  # the lists' generation, and the copy
    expect(page.locator("#shop .price")).to_have_text("€ 39.95")
    read(page, "miss")
    expect(page.locator("#shop .price")).to_have_text("€ 39.95")


def test_the_form_is_closed_by_cancel_and_focus_returns(
    page: Page, guest: None
) -> None:
    page.goto("/catalog/1042")
    opener = page.get_by_role("button", name="Edit price")
    opener.click()
    expect(page.get_by_label("Price in €")).to_be_focused()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Price in €")).to_be_hidden()
    expect(opener).to_be_focused()


def test_the_products_key_is_shown_and_its_ttl_drains(page: Page) -> None:
    page.goto("/catalog/1042")
    row = page.locator("#keys li", has_text="{1042}")
    left = row.locator('[data-slot="left"] b')
    expect(left).to_have_text(re.compile(r"^(1:0|5)\d:\d\d"))
    before = left.inner_text()
    value = row.locator("progress").evaluate("bar => bar.value")
    expect(left).not_to_have_text(before)
    assert row.locator("progress").evaluate("bar => bar.value") < value


def test_an_opened_product_is_marked_as_cached_in_the_list(page: Page) -> None:
    page.goto("/catalog/1043")
    page.get_by_role("link", name=re.compile("^Open Desk lamp")).click()
    expect(page.locator("#pill-1043")).to_have_text("cached")
    expect(page.locator("#pill-1045")).to_have_text("not cached")


def test_category_and_page_stay_when_a_product_is_opened(page: Page) -> None:
    page.goto("/catalog")
    page.get_by_label("Category").select_option("lighting")
    expect(page).to_have_url(re.compile("category=lighting$"))
    page.get_by_role("link", name="Next page").click()
    expect(page).to_have_url(re.compile("category=lighting&after="))
    page.locator(".plist a").first.click()
    expect(page.locator("#shop .price")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/catalog/\d+\?category=lighting&after="))
    expect(page.get_by_role("link", name="First page")).to_be_visible()


def test_back_shows_the_product_before(page: Page) -> None:
    page.goto("/catalog/1042")
    page.get_by_role("link", name="Open Stoneware mug").click()
    expect(page.locator("#shop h3")).to_have_text("Stoneware mug")
    page.go_back()
    expect(page.locator("#shop h3")).to_contain_text("Enamel kettle")


def test_a_replay_reveals_steps_and_their_receipts_one_by_one(page: Page) -> None:
    page.goto("/catalog")
    card = run(page, "stale-set")
    steps = card.locator(".step:visible")
    receipts = page.locator("#tape-roll .receipt:visible")
    expect(steps).to_have_count(2)
    expect(receipts).to_have_count(2)
    card.get_by_role("button", name="Next step").click()
    expect(steps).to_have_count(4)
    expect(receipts).to_have_count(4)
    card.get_by_role("button", name="All steps").click()
    expect(steps).to_have_count(12)
    expect(receipts).to_have_count(12)
    expect(card.get_by_role("button", name="Next step")).to_be_disabled()
    card.get_by_role("button", name="Start over").click()
    expect(steps).to_have_count(2)


def test_a_stale_set_ends_with_the_old_price_and_the_lease_prevents_it(
    page: Page,
) -> None:
    page.goto("/catalog")
    card = run(page, "stale-set")
    card.get_by_role("button", name="All steps").click()
    last = card.locator(".replay ol").locator(".step:last-child .reply")
    expect(last).to_have_text(["€ 24.99", "€ 19.99"])


def test_badges_in_the_code_and_rows_of_the_tape_mark_each_other(page: Page) -> None:
    page.goto("/catalog/1042?tab=code")
    badge = page.locator(".code .ref", has_text="2")
    row = newest(page).locator('.cmd[data-ref="2"]')
    badge.hover()
    expect(row).to_have_class(re.compile("is-marked"))
    page.mouse.move(0, 0)
    expect(row).not_to_have_class(re.compile("is-marked"))
    row.hover()
    expect(badge).to_have_class(re.compile("is-marked"))
    badge.focus()
    expect(row).to_have_class(re.compile("is-marked"))


def test_a_badge_marks_no_row_that_another_line_sent(page: Page, guest: None) -> None:
    page.goto("/catalog/1042?tab=code")
    save(page, "48.50")
    expect(page.locator(".code .ref")).to_have_text(["2"])
    page.get_by_role("tab", name="Break it").click()
    run(page, "no-ttl")
    page.get_by_role("tab", name="The code").click()
    page.locator(".code .ref").hover()
    expect(page.locator(".code .ref.is-marked")).to_have_count(1)
    expect(page.locator("#tape-roll .is-marked")).to_have_count(0)


def test_badges_follow_the_newest_read(page: Page) -> None:
    page.goto("/catalog/1042?tab=code")
    expect(page.locator(".code .ref")).to_have_text(["db", "1", "2"])
    read(page, "hit")
    expect(page.locator(".code .ref")).to_have_text(["1"])


def test_each_tab_has_a_url(page: Page) -> None:
    page.goto("/catalog?tab=words")
    expect(page.get_by_role("tabpanel", name="In plain words")).to_be_visible()
    page.get_by_role("tab", name="The code").click()
    expect(page).to_have_url(re.compile(r"\?tab=code$"))
    page.reload()
    expect(page.get_by_role("tabpanel", name="The code")).to_be_visible()
    expect(page.get_by_role("tabpanel", name="In plain words")).to_be_hidden()


def test_tabs_are_moved_by_arrow_keys(page: Page) -> None:
    page.goto("/catalog")
    page.get_by_role("tab", name="Break it").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="The code")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="The code")).to_be_visible()


def test_a_source_on_the_tape_leads_to_its_line(page: Page) -> None:
    page.goto("/catalog/1042")
    source = newest(page).locator(".cmd__src").first
    line = page.locator(f'[id="line-{source.inner_text()}"]')
    source.click()
    expect(line).to_be_in_viewport()
    expect(line).to_have_class(re.compile("hit"))


def test_a_line_of_an_experiment_is_not_taken_for_one_of_the_pattern(
    page: Page,
) -> None:
    page.goto("/catalog")
    run(page, "no-ttl")
    broken = page.locator("#tape-roll .receipt", has_text="SET 20 values").last
    source = broken.locator(".cmd__src").first
    expect(source).to_have_text(re.compile(r"^experiments/cache_aside\.py:\d+$"))
    expect(broken.locator("a.cmd__src")).to_have_count(0)


def test_inside_lua_the_calls_that_ran_are_shown(page: Page) -> None:
    page.goto("/catalog")
    page.get_by_label("See inside Lua").check()
    page.get_by_role("link", name="Open product 1042").click()
    inner = newest(page).locator(".cmd--in b")
    expect(inner).to_have_text(["GET", "GET", "SET", "GET", "SET", "DEL"])


def test_distance_is_marked_on_each_round_trip(page: Page) -> None:
    page.goto("/catalog")
    fader = page.get_by_label(re.compile("^Distance"))
    fader.press("ArrowRight")
    fader.press("ArrowRight")
    page.get_by_role("link", name="Open product 1042").click()
    far = newest(page).locator(".cmd__far")
    expect(far).to_have_text(["+20 ms distance", "+20 ms distance"])


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_the_shop_works(page: Page, guest: None) -> None:
    page.goto("/catalog")
    page.get_by_role("link", name="Open product 1042").click()
    expect(page.locator("#tape-roll .receipt .pill")).to_have_text("miss")
    page.get_by_role("button", name="Edit price").click()
    page.get_by_label("Price in €").fill("12.50")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#tape-roll .receipt .pill")).to_have_text("invalidated")
    expect(page.locator("#shop .price")).to_have_text("€ 12.50")


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_a_replay_shows_all_its_steps(page: Page) -> None:
    page.goto("/catalog")
    run(page, "stale-set")
    expect(page.locator(".step")).to_have_count(12)
    expect(page.locator(".step:visible")).to_have_count(12)


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_the_data_can_be_reset(page: Page) -> None:
    page.goto("/catalog/1042")
    page.goto("/")
    with page.expect_navigation():
        page.get_by_role("button", name="Reset demo data now").click()
    page.goto("/catalog/1042")
    expect(page.locator("#tape-roll .receipt .pill")).to_have_text("miss")


@pytest.fixture
def hostile_product(site: Served) -> Iterator[int]:
    """A product of the first list page whose name is an attack."""
    shop = sqlite3.connect(Path(site.environ["INSTANCE_PATH"]) / "shop.db")
    was = shop.execute("SELECT name FROM product WHERE id = 1044").fetchone()
    with shop:
        shop.execute("UPDATE product SET name = ? WHERE id = 1044", (HOSTILE,))
    yield 1044
    with shop:
        shop.execute("UPDATE product SET name = ? WHERE id = 1044", was)
    shop.close()


def test_a_hostile_name_is_text_everywhere(page: Page, hostile_product: int) -> None:
    page.goto(f"/catalog/{hostile_product}")
    expect(page.locator("#shop h3")).to_have_text(HOSTILE)
    read(page, "hit")
    page.get_by_role("link", name="Open Stoneware mug").click()
    expect(page.locator(".plist .nm", has_text=HOSTILE)).to_be_visible()
    page.reload()
    expect(newest(page)).to_be_visible()
    assert page.locator("img, h3 b, .nm b").count() == 0


# Variants


def test_write_through_makes_the_read_after_an_edit_a_hit(
    page: Page, guest: None, theme: str
) -> None:
    page.goto("/catalog/1044")
    page.get_by_role("link", name="Write-through").click()
    expect(page).to_have_url(re.compile(r"/catalog/1044\?variant=write-through$"))
    save(page, "59.00")
    expect(newest(page).locator(".pill")).to_have_text("stored")
    read(page, "hit")
    expect(page.locator("#shop .price")).to_have_text("€ 59.00")
    expect(page).to_have_url(re.compile("variant=write-through"))


def test_a_category_is_invalidated_at_once_and_its_tag_is_among_the_keys(
    page: Page, theme: str
) -> None:
    page.goto("/catalog/1042?variant=tag-invalidation")
    expect(page.locator("#keys li", has_text="catalog:tag:{kitchen}")).to_be_visible()
    page.get_by_role("button", name="Invalidate kitchen").click()
    expect(newest(page).locator(".pill")).to_have_text(re.compile(r"keys? deleted"))
    read(page, "miss")
    read(page, "hit")


@pytest.mark.parametrize("variant", ["write-through", "tag-invalidation"])
def test_the_category_list_keeps_its_entries_and_says_what_the_url_says(
    page: Page, variant: str
) -> None:
    page.goto(f"/catalog/1042?variant={variant}")
    chooser = page.get_by_label("Category")
    entries = chooser.locator("option").count()
    assert entries > 5
    chooser.select_option("lighting")
    expect(page).to_have_url(re.compile(f"variant={variant}&category=lighting$"))
    page.locator(".plist a").first.click()
    expect(page).to_have_url(re.compile(r"/catalog/(?!1042)\d+\?.*category=lighting"))
    assert chooser.locator("option").count() == entries
    expect(chooser).to_have_value("lighting")


def test_readers_at_once_show_that_one_loads_under_the_lock(
    page: Page, theme: str
) -> None:
    page.goto("/catalog?variant=stampede")
    page.locator("#readers-count").press("Home")
    page.get_by_role("button", name="Run all").click()
    lanes = page.locator("#readers .lane:not(.lane--axis)")
    expect(lanes).to_have_count(5, timeout=30_000)
    lock = page.get_by_role("row", name=re.compile("^Lock"))
    expect(lock.locator("td").first).to_have_text("1")
    expect(page.locator("#tape-roll")).to_contain_text("Lock: reader")
    assert serious(page) == []


def test_the_answer_of_a_list_is_a_hit_then_304_and_void_by_an_edit(
    page: Page, guest: None, theme: str
) -> None:
    page.goto("/catalog/1042?variant=response-cache")
    said = page.locator(".answered")
    ask = page.get_by_role("button", name="Ask", exact=True)
    for outcome in ("miss", "hit"):
        ask.click()
        expect(newest(page).locator(".pill")).to_have_text(outcome)
        expect(said).to_contain_text("200, OK")
    page.get_by_role("button", name="Ask with its ETag").click()
    expect(said).to_contain_text("304, not modified")
    keys = page.locator("#keys li", has_text="catalog:generation:{products}")
    expect(keys).to_be_visible()
    assert serious(page) == []
    save(page, "41.00")
    expect(newest(page).locator(".pill")).to_have_text("invalidated")
    ask.click()
    expect(newest(page).locator(".pill")).to_have_text("miss")


@pytest.mark.parametrize(
    "variant", ["write-through", "tag-invalidation", "stampede", "response-cache"]
)
def test_a_variant_fits_a_phone(page: Page, variant: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"/catalog/1042?variant={variant}")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
