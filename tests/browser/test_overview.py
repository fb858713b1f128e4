"""The overview: the way to each page, the simulated shoppers, the reset."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import newest
from webapp.rooms import PAGES
from webapp.rooms import Page as RoomPage

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: entry.name)
def test_a_tile_leads_to_its_page(page: Page, entry: RoomPage) -> None:
    page.goto("/")
    page.locator(".tile", has_text=entry.title).click()
    expect(page).to_have_url(re.compile(f"{entry.url}$"))
    expect(page.locator('.nav [aria-current="page"]')).to_have_count(1)


def test_the_shoppers_pace_is_chosen_in_place(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="50/s").click()
    expect(page.get_by_role("button", name="50/s", pressed=True)).to_be_visible()
    page.get_by_role("button", name="Off").click()
    expect(page.get_by_role("button", name="Off", pressed=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Off", pressed=True)).to_be_visible()


def test_reset_asks_first_and_says_what_it_did(page: Page, theme: str) -> None:
    page.goto("/catalog/1042")
    page.goto("/")
    page.get_by_role("button", name="Reset demo data").click()
    dialog = page.get_by_role("dialog", name="Reset demo data")
    expect(dialog).to_contain_text("rpl:*")
    dialog.get_by_role("button", name="Remove the keys").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#reset-result")).to_contain_text(
        re.compile(r"Removed \d+ keys?,")
    )
    expect(newest(page)).to_contain_text("UNLINK")


def test_a_cancelled_reset_removes_nothing(page: Page) -> None:
    page.goto("/catalog/1042")
    page.goto("/")
    page.get_by_role("button", name="Reset demo data").click()
    page.get_by_role("button", name="Cancel").click()
    page.goto("/catalog/1042")
    expect(newest(page).locator(".pill")).to_have_text("hit")
