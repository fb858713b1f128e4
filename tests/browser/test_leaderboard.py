"""The leaderboard as a newcomer uses it: add, send again, look far down, break."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, newest

pytestmark = pytest.mark.browser


def add_samples(page: Page) -> None:
    page.get_by_role("button", name="Add sample shoppers").click()
    expect(page.locator("#board")).to_contain_text("Wim")


def add(page: Page, player: str) -> None:
    page.locator("#player").fill(player)
    page.get_by_role("button", name="Add points").click()
    expect(newest(page)).to_contain_text(player[:20])
    expect(newest(page).locator(".pill")).to_have_text("added")


def test_a_newcomer_adds_points_and_a_repeat_changes_nothing(
    page: Page, theme: str
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Leaderboard").last.click()
    add_samples(page)
    add(page, "ada")
    expect(newest(page)).to_contain_text("1 command, 1 round trip")
    row = page.locator("#board .is-sel").first
    before = row.inner_text()
    page.get_by_role("button", name="Send the same again").click()
    expect(newest(page).locator(".pill")).to_have_text("repeated")
    assert page.locator("#board .is-sel").first.inner_text() == before


def test_a_bad_name_is_told_at_its_field(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 422")
    page.goto("/leaderboard")
    page.locator("#player").fill("a b")
    page.get_by_role("button", name="Add points").click()
    field = page.locator("#player")
    expect(field).to_have_value("a b")
    expect(field).to_have_accessible_description(re.compile("Letters, digits"))


def test_the_boards_key_is_shown_with_its_ttl(page: Page) -> None:
    page.goto("/leaderboard")
    add(page, "ada")
    row = page.locator("#keys li", has_text="-W").first
    expect(row.locator('[data-slot="left"] b')).to_have_text(re.compile(r"\d:\d\d"))


def test_a_crowd_fills_live_stops_and_is_removed(page: Page) -> None:
    page.goto("/leaderboard?board=crowd")
    page.get_by_role("button", name="Add a million players").click()
    count = page.locator("#crowd [role=status]")
    expect(count).not_to_have_text(re.compile("^0 of"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    page.get_by_role("link", name="Show the board").click()
    page.get_by_label("Go to rank").fill("15000")
    page.get_by_role("button", name="Go", exact=True).click()
    expect(page.locator("#board")).to_contain_text("After rank 14,999")
    page.get_by_role("button", name="Remove them").click()
    expect(count).to_have_text(re.compile("^0 of"))


def test_nothing_scrolls_sideways_on_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/leaderboard")
    add_samples(phone)
    add(phone, "a-name-of-a-player-that-is-as-long-as-a-name-may-be-0123456789ab")
    expect(phone.locator("#board .is-sel").first).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_finds_nothing(page: Page, theme: str) -> None:
    page.goto("/leaderboard")
    add_samples(page)
    add(page, "ada")
    page.wait_for_load_state("networkidle")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
