"""What a page does by itself: vitals, an outage and its end, the app away and back."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, Launched, newest, serious

pytestmark = pytest.mark.browser

_HEALS_MS = 15_000


def test_vitals_and_reads_arrive_without_asking(page: Page, launched: Launched) -> None:
    page.goto(f"{launched.url}/catalog")
    expect(page.locator("#vitals dd").first).to_have_text(re.compile(r"^\d+$"))
    expect(page.locator("#topology")).to_contain_text("Two servers")
    reads = page.locator("#strip .legend")
    before = reads.inner_text()
    page.get_by_role("link", name="Open product 1042").click()
    expect(reads).not_to_have_text(before, use_inner_text=True)
    expect(page.locator("#strip rect").first).to_be_attached()


def test_a_paused_page_counts_what_waits(page: Page, launched: Launched) -> None:
    page.goto(launched.url)
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#live")).to_have_text(re.compile(r"Paused, [2-9] waiting"))
    before = page.locator("#vitals").get_attribute("data-age-ms")
    expect(page.locator("#live")).to_have_text(re.compile(r"Paused, [4-9] waiting"))
    assert page.locator("#vitals").get_attribute("data-age-ms") == before


def test_the_page_sells_without_its_cache_and_heals_by_itself(
    page: Page, launched: Launched, complaints: Complaints
) -> None:
    complaints.expect("status of 503")
    page.goto(f"{launched.url}/catalog/1042")
    launched.cache.kill()
    banner = page.locator(".banner")
    expect(banner).to_contain_text("The cache server is down.", timeout=_HEALS_MS)
    page.get_by_role("link", name="Open again").click()
    expect(newest(page).locator(".pill")).to_have_text("database")
    expect(page.locator("#served")).to_contain_text("database")
    expect(page.locator("#shop .price")).to_be_visible()
    assert serious(page) == []
    launched.cache.start()
    expect(banner).to_be_hidden(timeout=_HEALS_MS)
    page.get_by_role("link", name="Open again").click()
    expect(newest(page).locator(".pill")).to_have_text("miss")


def test_a_page_whose_app_ended_says_so_and_recovers(
    page: Page, launched: Launched, complaints: Complaints
) -> None:
    complaints.expect(
        "ERR_CONNECTION_REFUSED", "WebSocket connection", "Failed to fetch"
    )
    page.goto(f"{launched.url}/catalog")
    expect(page.locator("#live")).to_have_text("Live")
    launched.stop()
    expect(page.locator("#live")).to_have_text("Reconnecting", timeout=_HEALS_MS)
    note = page.locator("#stream-lost")
    expect(note).to_contain_text(
        re.compile(r"Live updates stopped \d+ s ago"), timeout=_HEALS_MS
    )
    page.get_by_role("link", name="Open product 1042").click()
    failed = page.locator("#request-failed")
    expect(failed).to_contain_text("The app did not answer")
    launched.start()
    expect(page.locator("#live")).to_have_text("Live", timeout=_HEALS_MS)
    expect(note).to_be_hidden()
    failed.get_by_role("button", name="Try again").click()
    expect(page.locator("#shop .price")).to_be_visible()
    expect(failed).to_be_hidden()
