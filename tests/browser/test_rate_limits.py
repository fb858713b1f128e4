"""Rate limits as a visitor uses it: run a shape, see the edge, break it."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, Request, expect

from tests.browser.conftest import newest

pytestmark = pytest.mark.browser


def choose(page: Page, shape: str) -> None:
    page.get_by_text(shape, exact=True).click()


def play(page: Page) -> None:
    """Run the chosen shape to its end."""
    form = page.locator("#limits")
    form.get_by_role("button", name="Run").click()
    expect(form).to_have_attribute("aria-busy", "true")
    expect(form).to_have_attribute("aria-busy", "false", timeout=20_000)


def most(page: Page, algorithm: str) -> int:
    row = page.locator(".tbl tr", has_text=algorithm)
    return int(row.locator("td").last.inner_text())


def test_the_edge_burst_is_seen_in_the_fixed_window_and_not_in_the_log(
    page: Page, theme: str
) -> None:
    sent: list[Request] = []
    page.on("request", lambda r: sent.append(r) if r.method == "POST" else None)
    page.goto("/rate-limits?shape=edge")
    play(page)
    assert len(sent) == 43  # real requests: one, twice the limit, and two
    assert most(page, "Fixed window") > 20
    assert most(page, "Sliding window log") == 20
    fixed, log = page.locator(".lane", has=page.locator("circle")).all()
    expect(fixed.locator("path.f-no")).to_have_count(1)
    expect(log.locator("path.f-no")).to_have_count(0)
    expect(page.locator("#say")).to_contain_text("The fixed window admits")
    expect(newest(page)).to_contain_text("PEXPIRE")


def test_axe_finds_nothing_in_the_lanes(page: Page, theme: str) -> None:
    page.goto("/rate-limits")
    page.get_by_role("button", name="Send burst").click()
    expect(page.locator(".limits__say")).to_be_visible()
    page.get_by_role("button", name="Send one").click()
    expect(page.locator(".limits__say")).to_contain_text("21 requests")
    assert Axe().run(page).response["violations"] == []


def test_a_link_reproduces_the_screen(page: Page) -> None:
    page.goto("/rate-limits")
    page.get_by_label("Limit").first.fill("5")
    page.get_by_label("Window", exact=False).first.fill("1000")
    choose(page, "Spike")
    play(page)
    expect(page).to_have_url(re.compile(r"run=[0-9a-f]{6}-5-1000"))
    said = page.locator(".limits__say").inner_text()
    page.reload()
    expect(page.locator(".limits__say")).to_have_text(said)
    expect(page.get_by_label("Spike")).to_be_checked()
    expect(page.get_by_label("Limit").first).to_have_value("5")


def test_the_lanes_move_while_the_requests_are_sent(page: Page) -> None:
    page.goto("/rate-limits")
    choose(page, "Steady")
    page.locator("#limits").get_by_role("button", name="Run").click()
    expect(page.locator(".limits__say")).to_be_visible()
    first = page.locator(".limits__say").inner_text()
    expect(page.locator("#limits")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".limits__say")).not_to_have_text(first)
    expect(page.locator("#limits")).to_have_attribute(
        "aria-busy", "false", timeout=20_000
    )


def test_one_request_and_a_burst_go_on_with_the_same_run(page: Page) -> None:
    page.goto("/rate-limits")
    page.get_by_role("button", name="Send one").click()
    expect(page.locator(".limits__say")).to_contain_text("Same 1 request,")
    page.get_by_role("button", name="Send burst").click()
    expect(page.locator(".limits__say")).to_contain_text("Same 21 requests,")
    expect(newest(page).locator(".receipt__head .pill")).to_have_text("429")
    expect(page.locator("#keys li")).to_have_count(3)


def test_another_limit_begins_another_run(page: Page) -> None:
    page.goto("/rate-limits")
    page.get_by_role("button", name="Send one").click()
    expect(page.locator(".limits__say")).to_contain_text("limit of 20")
    page.get_by_label("Limit").first.fill("10")
    page.get_by_role("button", name="Send one").click()
    expect(page.locator(".limits__say")).to_contain_text("Same 1 request, ")
    expect(page.locator(".limits__say")).to_contain_text("limit of 10")


def test_on_a_phone_the_lanes_fit(phone: Page) -> None:
    phone.goto("/rate-limits")
    phone.get_by_role("button", name="Send burst").click()
    expect(phone.locator(".limits__say")).to_be_visible()
    width = phone.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


def test_without_scripts_a_burst_is_drawn(
    context: BrowserContext, base_url: str
) -> None:
    assert context.browser
    with context.browser.new_context(java_script_enabled=False) as plain:
        page = plain.new_page()
        page.goto(f"{base_url}/rate-limits")
        form = page.locator("#limits")
        expect(form.get_by_role("button", name="Run")).to_be_hidden()
        form.get_by_role("button", name="Send burst").click()
        expect(page.locator(".limits__say")).to_contain_text("Same 20 requests")
