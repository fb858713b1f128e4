"""The reference as a newcomer reads it: a row leads to the page that plays its part."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Launched, newest, serious

pytestmark = pytest.mark.browser


def test_a_row_leads_to_its_page_and_names_a_live_key(page: Page, theme: str) -> None:
    page.goto("/catalog/1042")
    page.goto("/")
    page.locator(".tile", has_text="Reference").click()
    row = page.locator("#use-cases tr", has_text="Simple cache")
    expect(row).to_contain_text("rpl:catalog:product:{1042}")
    expect(newest(page)).to_contain_text("SCAN")
    row.get_by_role("link", name="Catalog cache").click()
    expect(page).to_have_url(re.compile("/catalog$"))


def test_policies_are_marked_for_the_server_that_runs(
    page: Page, launched: Launched
) -> None:
    page.goto(f"{launched.url}/reference")
    expect(page.locator("#policies .pill--ok")).to_have_count(8)
    row = page.locator("#policies tr", has_text="noeviction")
    expect(row).to_contain_text("set on cache")


def test_the_reference_is_accessible(page: Page, theme: str) -> None:
    page.goto("/catalog/1042")
    page.goto("/reference")
    assert serious(page) == []


def test_the_reference_fits_a_phone(phone: Page) -> None:
    phone.goto("/reference")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
