"""Activity as people use it: look, see it listed, page, trim, Break it."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import newest, serious

pytestmark = pytest.mark.browser


def rows(page: Page) -> Locator:
    return page.locator(".acts li")


def look(page: Page, *, kept: int = 20) -> None:
    page.get_by_role("button", name="Look at 20 products").click()
    expect(page.locator("#activity")).to_contain_text(f"1 to 10 of {kept} kept")
    expect(newest(page).locator(".pill")).to_have_text("20 noted")


def test_one_click_signs_in_and_a_product_that_is_opened_is_listed(
    page: Page, theme: str
) -> None:
    page.goto("/activity")
    expect(page.locator("#activity")).to_contain_text("Not signed in")
    page.get_by_role("button", name="Sign in as a guest").click()
    expect(page.locator("#who")).to_contain_text("guest-")
    page.get_by_role("link", name="Open a product").click()
    expect(page).to_have_url(re.compile("/catalog/1042$"))
    page.goto("/activity")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("Enamel kettle, 1.7 l")
    expect(page.locator("#keys li")).to_contain_text("LIST")
    assert serious(page) == []


@pytest.mark.usefixtures("guest")
def test_an_edit_is_in_front_and_older_rows_show_its_price(page: Page) -> None:
    page.goto("/catalog/1045")
    page.get_by_role("button", name="Edit price").click()
    page.get_by_label("Price in €").fill("21.00")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#shop .price")).to_have_text("€ 21.00")
    page.goto("/activity")
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first.locator(".pill")).to_have_text("edit")
    for row in rows(page).all():
        expect(row).to_contain_text("€ 21.00")


@pytest.mark.usefixtures("guest")
def test_older_and_newest_go_by_entry_and_have_a_url(page: Page, theme: str) -> None:
    page.goto("/activity")
    look(page)
    first = rows(page).first.inner_text()
    page.get_by_role("link", name="Older", exact=True).click()
    expect(page).to_have_url(re.compile("after=view:|after=view%3A"))
    expect(page.locator("#activity")).to_contain_text("11 to 20 of 20 kept")
    expect(newest(page)).to_contain_text("activity_feed/page")
    page.reload()
    expect(page.locator("#activity")).to_contain_text("11 to 20 of 20 kept")
    page.get_by_role("link", name="Newest", exact=True).click()
    expect(rows(page).first).to_have_text(first, use_inner_text=True)


@pytest.mark.usefixtures("guest")
def test_a_full_list_shows_where_it_is_trimmed(page: Page, theme: str) -> None:
    page.goto("/activity")
    for kept in (20, 40, 50):
        look(page, kept=kept)
    expect(page.locator(".acts__strip rect.f-line")).to_have_count(0)
    for last in (20, 30, 40, 50):
        page.get_by_role("link", name="Older", exact=True).click()
        expect(page.locator("#activity")).to_contain_text(f"to {last} of 50 kept")
        if last < 50:
            expect(page.locator("#activity-older")).to_be_focused()
    expect(page.locator(".acts__trim")).to_contain_text("trimmed here")
    expect(page.get_by_role("link", name="Older", exact=True)).to_have_count(0)
    assert serious(page) == []


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_one_signs_in_looks_and_pages(page: Page) -> None:
    page.goto("/activity")
    page.get_by_role("button", name="Sign in as a guest").click()
    page.get_by_role("button", name="Look at 20 products").click()
    page.get_by_role("link", name="Older", exact=True).click()
    expect(page.locator("#activity")).to_contain_text("11 to 20 of 20 kept")


@pytest.mark.usefixtures("guest")
def test_the_page_fits_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/activity")
    phone.get_by_role("button", name="Look at 20 products").click()
    expect(rows(phone)).to_have_count(10)
    for name in ("by-offset", "bodies"):
        phone.locator(f"#xp-{name} button[type=submit]").click()
        phone.locator(f"#xp-{name} [data-act=all-steps]").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(phone) == []
