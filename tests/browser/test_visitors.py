"""Unique visitors as a newcomer sees them: counted, joined, simulated, broken."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import newest

pytestmark = pytest.mark.browser


def test_a_newcomer_is_counted_and_somebody_new_after_them(
    page: Page, theme: str
) -> None:
    page.goto("/")
    page.get_by_role("link", name="Unique visitors").last.click()
    exact = page.locator("#visitors .stats dd").first
    expect(exact).to_have_text("1")
    expect(page.locator("#tape-roll")).to_contain_text("Count the visit")
    page.get_by_role("button", name="Come as somebody new").click()
    expect(exact).to_have_text("2")
    expect(newest(page)).to_contain_text("PFADD")


def test_a_simulation_runs_stops_and_goes_on(page: Page, theme: str) -> None:
    page.goto("/visitors")
    page.get_by_role("button", name="Simulate").click()
    status = page.locator("#simulation [role=status]")
    expect(status).not_to_have_text(re.compile("^0 of"))
    stop = page.get_by_role("button", name="Stop")
    stop.focus()
    before = status.inner_text()
    expect(status).not_to_have_text(before)
    expect(stop).to_be_focused()  # each step leaves it in place
    stop.click()
    page.get_by_role("button", name="Go on").click()
    expect(status).to_have_text("100,000 of 100,000", timeout=120_000)
    expect(page.locator("#keys")).to_contain_text("{")
    curve = page.locator("#simulation figure > svg path.s-ok").first
    assert (curve.get_attribute("d") or "").count("L") == 99
    assert Axe().run(page).violations_count == 0


def test_nothing_scrolls_sideways_on_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/visitors")
    phone.get_by_role("button", name="Simulate").click()
    expect(phone.get_by_role("button", name="Stop")).to_be_visible()
    phone.get_by_role("button", name="Stop").click()
    expect(phone.locator("#simulation figure > svg").first).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
