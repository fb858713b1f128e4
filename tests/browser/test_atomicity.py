"""Atomicity as people use it: transfer, overdraw, race, Break it."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import newest, serious

pytestmark = pytest.mark.browser


def begin_again(page: Page) -> None:
    page.goto("/atomicity")
    page.get_by_role("button", name="Begin again").click()
    expect(newest(page).locator(".pill")).to_have_text("begun again")


def transfer(page: Page, way: str, amount: str) -> None:
    page.get_by_label("Way").select_option(label=way)
    page.get_by_label("Amount").fill(amount)
    page.get_by_role("button", name="Transfer", exact=True).click()


def test_a_transfer_is_one_round_trip_by_script_and_three_by_watch(
    page: Page, theme: str
) -> None:
    begin_again(page)
    transfer(page, "Lua script", "10")  # the server may not know the script yet
    expect(page.locator("#accounts [role=status]")).to_contain_text("Anna to Ben, € 10")
    transfer(page, "Lua script", "20")
    expect(page.locator("#accounts [role=status]")).to_contain_text("Anna to Ben, € 20")
    expect(newest(page)).to_contain_text("1 command, 1 round trip")
    transfer(page, "WATCH with retries", "31")
    expect(page.locator("#accounts [role=status]")).to_contain_text("€ 31: 1 try")
    expect(newest(page)).to_contain_text("3 round trips")
    expect(page.locator(".accounts")).to_contain_text("€ 161")
    assert serious(page) == []


def test_multi_alone_overdraws_where_the_script_refuses(page: Page) -> None:
    begin_again(page)
    transfer(page, "Lua script", "150")
    expect(page.locator("#accounts [role=status]")).to_contain_text("refused")
    transfer(page, "MULTI, no look", "150")
    expect(page.locator("#accounts [role=status]")).to_contain_text("overdrawn")
    expect(page.locator(".accounts")).to_contain_text("\u2212€ 50")
    begin_again(page)


def test_a_race_shows_what_each_way_is_worth(page: Page, theme: str) -> None:
    page.goto("/atomicity")
    page.get_by_role("button", name="Run the race").click()
    rows = page.locator(".race__tbl tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("made")
    expect(rows.nth(1)).to_contain_text("overdrawn")
    expect(rows.nth(3)).to_contain_text("right")
    expect(page.locator("#race-run")).to_be_focused()
    assert serious(page) == []


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_one_transfers_and_races(page: Page) -> None:
    page.goto("/atomicity")
    page.get_by_role("button", name="Begin again").click()
    expect(page.locator("#tape-roll")).to_contain_text("begun again")
    page.get_by_role("button", name="Transfer", exact=True).click()
    expect(page.locator("#accounts [role=status]")).to_contain_text("Anna to Ben")
    page.get_by_role("button", name="Run the race").click()
    expect(page.locator(".race__tbl tbody tr")).to_have_count(4)


def test_the_page_fits_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/atomicity")
    phone.get_by_role("button", name="Run the race").click()
    expect(phone.locator(".race__tbl tbody tr")).to_have_count(4)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(phone) == []
