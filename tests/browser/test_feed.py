"""The live feed in two browsers: heard, lost, and whole again."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Complaints, newest, serious
from tests.conftest import RedisProcess, Served

pytestmark = pytest.mark.browser


@pytest.fixture
def other(browser: Browser, site: Served) -> Iterator[Page]:
    """Somebody else's browser."""
    context = browser.new_context(base_url=site.url)
    yield context.new_page()
    context.close()


def look(page: Page) -> Page:
    page.goto("/feed")
    expect(state(page, "connected")).to_be_visible()
    return page


def state(page: Page, name: str):  # type: ignore[no-untyped-def]
    return page.locator(f'#feed-state [data-state="{name}"]')


def say(page: Page, text: str) -> None:
    page.get_by_label("Say it to everybody").fill(text)
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_label("Say it to everybody")).to_have_value("")
    expect(page.locator("#feed-said")).to_contain_text("PUBLISH told")


def rows(page: Page):  # type: ignore[no-untyped-def]
    return page.locator("#feed-list .feed__text")


def test_what_one_says_the_other_reads_at_once(
    page: Page, other: Page, theme: str
) -> None:
    look(page)
    look(other)
    say(page, "good morning")
    for one in page, other:
        expect(rows(one).first).to_have_text("good morning")
    expect(newest(page).locator(".pill")).to_have_text("1 told")
    expect(page.get_by_label("Say it to everybody")).to_have_value("")
    expect(other.locator("#feed-empty")).to_be_hidden()


def test_a_product_that_somebody_opens_is_on_the_feed(page: Page, other: Page) -> None:
    look(page)
    other.goto("/catalog/1042")
    other.get_by_role("button", name="Sign in as a guest").click()
    expect(rows(page).first).to_have_text("A guest signed in")
    other.get_by_role("link", name="Open again").click()
    expect(rows(page).first).to_have_text("A guest looks at Enamel kettle, 1.7 l")
    page.get_by_role("link", name="Enamel kettle").click()
    expect(page).to_have_url(re.compile("/catalog/1042$"))


def test_a_hostile_message_is_text(page: Page, other: Page) -> None:
    hostile = "<img src=x onerror=alert(1)></script><b>{{7*7}}</b>"
    look(page)
    look(other)
    say(page, hostile)
    for one in page, other:
        expect(rows(one).first).to_have_text(hostile)
        assert one.locator("img, #feed-list b").count() == 0


def test_who_was_away_reads_how_many_came(
    page: Page, other: Page, complaints: Complaints
) -> None:
    complaints.expect("ERR_INTERNET_DISCONNECTED", "WebSocket", "keys")
    look(page)
    look(other)
    page.evaluate("dispatchEvent(new Event('pagehide'))")  # closes the websocket
    expect(state(page, "lost")).to_be_visible()
    for n in range(3):
        say(other, f"message {n}")
    page.evaluate(
        "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))"
    )
    expect(state(page, "back")).to_be_visible()
    expect(page.locator("#feed-state")).to_contain_text("3 came while you were away")
    expect(rows(page)).to_have_text(["message 2", "message 1", "message 0"])


def test_a_lost_server_is_told_and_the_feed_comes_back(
    page: Page, cache_server: RedisProcess, complaints: Complaints
) -> None:
    complaints.expect("503", "keys")
    look(page)
    cache_server.kill()
    expect(state(page, "lost")).to_be_visible()
    cache_server.start()
    expect(state(page, "back")).to_be_visible(timeout=10_000)


def test_a_paused_page_counts_events_and_shows_them_later(
    page: Page, other: Page
) -> None:
    look(page)
    look(other)
    page.locator("#live").click()
    say(other, "quietly")
    expect(page.locator("#live")).to_have_text("Paused, 1 waiting")
    expect(rows(page)).to_have_count(0)
    page.locator("#live").click()
    expect(rows(page)).to_have_text(["quietly"])


def test_the_list_keeps_fifty(page: Page, other: Page, cache_server: object) -> None:
    look(page)
    other.goto("/feed")
    for n in range(55):
        other.request.post("/feed", form={"text": f"message {n}"})
    expect(rows(page).first).to_have_text("message 54")
    expect(rows(page)).to_have_count(50)


def test_the_key_and_its_listeners_are_shown(page: Page) -> None:
    look(page)
    say(page, "hello")
    expect(page.locator("#keys li")).to_contain_text("rpl:feed:events:{shop}")
    expect(page.locator("#feed-facts dd").first).to_have_text("1")
    expect(page.locator("#feed-facts dd").last).to_have_text("1 of 1,000")


def test_too_long_is_told_at_the_line(page: Page, complaints: Complaints) -> None:
    complaints.expect("status of 422")
    look(page)
    page.get_by_role("button", name="Publish").click()
    field = page.get_by_label("Say it to everybody")
    expect(field).to_have_accessible_description(re.compile("1 to 200"))
    expect(field).to_be_focused()


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_one_can_say_and_read(page: Page) -> None:
    page.goto("/feed")
    page.get_by_label("Say it to everybody").fill("by hand")
    page.get_by_role("button", name="Publish").click()
    expect(rows(page).first).to_have_text("by hand")


def test_a_cut_line_loses_by_pub_sub_and_not_by_a_stream(
    page: Page, theme: str
) -> None:
    page.goto("/feed")
    page.get_by_role("button", name="Cut the line").click()
    lanes = page.locator(".cut__lane .pill")
    expect(lanes).to_have_text(
        ["all heard", "8 lost", "10 lost", "all heard", "all heard", "all heard"]
    )
    assert serious(page) == []
