"""What every page has around it: tape, themes, keyboard, narrow and loud screens."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Complaints, newest, serious
from tests.conftest import Served
from webapp.rooms import PAGES

pytestmark = pytest.mark.browser

PLACES = ["/", *(page.url for page in PAGES), "/catalog/1042", "/catalog?tab=code"]
PLACES += ["/catalog?tab=words", "/catalog/1042?edit=1", "/nothing-here"]
PLACES += [f"/catalog/1042?variant={v}" for v in ("write-through", "tag-invalidation")]

SMALLEST_TEXT = """roll => {
    const walker = document.createTreeWalker(roll, NodeFilter.SHOW_TEXT);
    const sizes = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (walker.currentNode.textContent.trim() && element.checkVisibility())
            sizes.push(parseFloat(getComputedStyle(element).fontSize));
    }
    return Math.min(...sizes);
}"""


def open_again(page: Page) -> None:
    page.get_by_role("link", name="Open again").click()


def receipts(page: Page) -> Locator:
    return page.locator("#tape-roll .receipt:visible")


# The tape


def test_the_tape_survives_navigation(page: Page) -> None:
    page.goto("/catalog/1042")
    open_again(page)
    expect(receipts(page)).to_have_count(2)
    page.goto("/")
    expect(receipts(page)).to_have_count(2)
    expect(newest(page).locator(".pill")).to_have_text("hit")


def test_this_page_leaves_out_the_receipts_of_others(page: Page) -> None:
    page.goto("/catalog/1042")
    page.goto("/")
    page.get_by_role("button", name="This page").click()
    expect(page.locator("#tape-empty")).to_be_visible()
    page.get_by_role("button", name="All pages").click()
    expect(newest(page)).to_contain_text("1042")


def test_housekeeping_is_counted_and_shown_on_demand(page: Page) -> None:
    page.goto("/catalog/1042")
    switch = page.get_by_label("Housekeeping (3)")
    expect(receipts(page)).to_have_count(1)
    switch.check()
    expect(receipts(page)).to_have_count(
        4
    )  # the keys, the visit, and the list of categories
    expect(newest(page)).to_contain_text("MEMORY")


def test_find_keeps_only_receipts_with_that_text(page: Page) -> None:
    page.goto("/catalog/1042")
    page.get_by_role("link", name="Open Stoneware mug").click()
    expect(receipts(page)).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("{1042}")
    expect(receipts(page)).to_have_count(1)
    page.keyboard.press("Escape")
    expect(receipts(page)).to_have_count(2)


def test_find_opens_the_page_of_that_name_on_enter(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("leader")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Leaderboard")


def test_copy_gives_a_line_for_redis_cli(page: Page, site: Served) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/catalog/1042")
    page.get_by_role("button", name="Copy as redis-cli").click()
    expect(page.locator("#say")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("EVALSHA")
    assert "rpl:catalog:product:{1042}" in copied


def test_clear_empties_the_tape_for_good(page: Page) -> None:
    page.goto("/catalog/1042")
    page.get_by_role("button", name="Clear tape").click()
    expect(page.locator("#tape-empty")).to_be_visible()
    page.goto("/")
    expect(page.locator("#tape-empty")).to_be_visible()


def test_a_folded_tape_stays_folded(page: Page) -> None:
    page.goto("/catalog/1042")
    page.get_by_role("button", name="Fold tape").click()
    expect(page.locator("#tape-roll")).to_be_hidden()
    page.reload()
    expect(page.locator("#tape-roll")).to_be_hidden()
    page.get_by_role("button", name="Open tape").first.click()
    expect(newest(page)).to_be_visible()


def test_new_receipts_wait_while_the_tape_is_read(page: Page) -> None:
    page.goto("/catalog/1042")
    first = newest(page).get_attribute("id")
    page.locator("#tape-roll").evaluate("roll => roll.scrollTop = 60")
    open_again(page)
    chip = page.get_by_role("button", name="1 new")
    expect(chip).to_be_visible()
    expect(newest(page)).to_have_id(str(first))
    chip.click()
    expect(newest(page).locator(".pill")).to_have_text("hit")
    expect(chip).to_be_hidden()


def test_the_newest_three_receipts_are_open(page: Page) -> None:
    page.goto("/catalog/1042")
    for count in range(2, 5):
        open_again(page)
        expect(receipts(page)).to_have_count(count)
    heads = receipts(page).locator(".receipt__head")
    opened = [head.get_attribute("aria-expanded") for head in heads.all()]
    assert opened == ["true", "true", "true", "false"]
    heads.last.click()
    expect(heads.last).to_have_attribute("aria-expanded", "true")


# Preferences and keyboard


def test_the_theme_is_in_the_first_byte_of_the_next_page(
    page: Page, complaints: Complaints
) -> None:
    page.emulate_media(color_scheme="light")
    page.goto("/")
    page.get_by_role("button", name="Switch theme").click()
    answer = page.goto("/catalog")
    assert answer is not None
    assert 'data-theme="dark"' in answer.text()
    paper = page.locator("body").evaluate("b => getComputedStyle(b).backgroundColor")
    assert paper == "rgb(15, 18, 20)"


def test_projector_text_on_the_tape_is_at_least_20_px(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto("/catalog/1042")
    page.keyboard.press("p")
    expect(page.locator("html")).to_have_attribute("data-projector", "")
    assert page.locator("#tape-roll").evaluate(SMALLEST_TEXT) >= 20
    page.reload()
    assert page.locator("#tape-roll").evaluate(SMALLEST_TEXT) >= 20


def test_on_a_projector_the_newest_receipt_fills_the_dock(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto("/catalog/1042")
    page.keyboard.press("p")
    open_again(page)
    expect(receipts(page)).to_have_count(2)
    dock = page.locator("#tape-roll").evaluate("roll => roll.clientHeight")
    filled = newest(page).evaluate("receipt => receipt.offsetHeight")
    assert filled > dock * 0.9


def test_single_keys_do_what_the_list_says(page: Page) -> None:
    page.goto("/catalog/1042")
    open_again(page)
    expect(receipts(page)).to_have_count(2)
    page.keyboard.press("j")
    expect(newest(page).locator(".receipt__head")).to_be_focused()
    page.keyboard.press("Enter")
    expect(newest(page).locator(".cmds")).to_be_hidden()
    page.keyboard.press("2")
    expect(page.get_by_role("tabpanel", name="The code")).to_be_visible()
    page.keyboard.press("t")
    expect(page.locator("#tape-roll")).to_be_hidden()
    page.keyboard.press("l")
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("d")
    expect(page.locator("html")).to_have_attribute("data-theme", re.compile("."))


def test_r_runs_the_focused_experiment(page: Page) -> None:
    page.goto("/catalog")
    page.locator("#xp-empty-value input").first.focus()
    page.keyboard.press("r")
    expect(page.locator("#xp-empty-value .xp__say")).to_be_visible()
    expect(page.locator(".xp__say")).to_have_count(1)


def test_single_keys_are_silent_while_typing(page: Page, guest: None) -> None:
    page.goto("/catalog/1042?edit=1")
    page.get_by_label("Price in €").fill("")
    page.keyboard.type("tpdl?")
    expect(page.get_by_label("Price in €")).to_have_value("tpdl?")
    expect(page.locator("#tape-roll")).to_be_visible()
    expect(page.locator("#shortcuts")).to_be_hidden()


def test_single_keys_can_be_switched_off(page: Page) -> None:
    page.goto("/catalog")
    page.keyboard.press("?")
    page.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("t")
    page.reload()
    page.keyboard.press("t")
    expect(page.locator("#tape-roll")).to_be_visible()


def test_paused_stays_paused_on_the_next_page(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#live")).to_contain_text("Paused")
    page.goto("/catalog")
    expect(page.locator("#live")).to_contain_text("Paused")
    page.locator("#live").click()
    expect(page.locator("#live")).not_to_contain_text("Paused")


def test_the_skip_link_leads_to_the_content(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))


# Narrow screens


def test_no_page_scrolls_sideways(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 404")
    for place in PLACES:
        page.goto(place)
        for width in (390, 320):
            page.set_viewport_size({"width": width, "height": 844})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, place


def test_a_replay_fits_a_phone(phone: Page) -> None:
    phone.goto("/catalog")
    phone.locator("#xp-stale-set button[type=submit]").click()
    phone.get_by_role("button", name="All steps").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_menu_is_a_drawer_on_a_phone(phone: Page) -> None:
    phone.goto("/")
    expect(phone.locator("#rail")).to_be_hidden()
    phone.get_by_role("button", name="Menu").click()
    expect(phone.locator("#rail a").first).to_be_focused()
    phone.keyboard.press("Escape")
    expect(phone.locator("#rail")).to_be_hidden()
    expect(phone.get_by_role("button", name="Menu")).to_be_focused()


def test_the_tape_is_a_drawer_on_a_phone_and_peeks_its_last_command(
    phone: Page,
) -> None:
    phone.goto("/catalog/1042")
    expect(phone.locator(".tape__peek")).to_contain_text("EVALSHA")
    expect(phone.locator(".tape__peek")).to_contain_text("miss")
    phone.get_by_role("button", name="Open tape").click()
    expect(newest(phone)).to_be_in_viewport()
    phone.get_by_role("button", name="Close tape").click()
    expect(newest(phone)).to_be_hidden()


# Everybody


@pytest.mark.timeout(180)  # it looks at every page there is
def test_axe_finds_nothing_serious(
    page: Page, theme: str, complaints: Complaints
) -> None:
    complaints.expect("status of 404")
    for place in PLACES:
        page.goto(place)
        assert serious(page) == [], place


def test_axe_finds_nothing_serious_in_results_dialogs_and_drawers(
    page: Page, theme: str
) -> None:
    page.goto("/catalog/1042")
    for name in ("empty-value", "stale-set"):
        page.locator(f"#xp-{name} button[type=submit]").click()
        expect(page.locator(f"#xp-{name} .xp__say")).to_be_visible()
    page.get_by_role("button", name="All steps").click()
    assert serious(page) == []
    page.keyboard.press("?")
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Open tape").click()
    assert serious(page) == []


def test_with_reduced_motion_nothing_moves(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto("/catalog")
    page.get_by_role("link", name="Open product 1042").click()
    expect(newest(page).locator(".pill")).to_have_text("miss")
    running = "document.getAnimations().filter(a => a.playState === 'running').length"
    assert page.evaluate(running) == 0


def test_in_forced_colours_borders_stay(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    page.goto("/catalog/1042")
    width = "e => parseFloat(getComputedStyle(e).borderTopWidth)"
    for part in (".pill", ".btn", ".panel", ".tape .seg"):
        assert page.locator(part).first.evaluate(width) >= 1, part


def test_a_wide_font_does_not_push_the_brand_out_of_the_rail(page: Page) -> None:
    page.goto("/")
    brand = page.locator(".brand")
    brand.evaluate("e => e.style.setProperty('letter-spacing', '2px')")
    fits = "e => e.scrollWidth <= e.clientWidth && e.scrollHeight <= e.clientHeight"
    assert brand.evaluate(fits)
