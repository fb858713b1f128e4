"""Locks as people use them: take, be told to wait, write, write late, Break it."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Launched, newest, serious
from tests.conftest import RedisProcess
from webapp.experiments import redlock
from webapp.experiments.distributed_lock import EXPERIMENTS, PROCESS_EXPERIMENTS

pytestmark = pytest.mark.browser

CARDS = EXPERIMENTS + PROCESS_EXPERIMENTS + redlock.EXPERIMENTS
LOCK = "rpl:locks:lock:{nightly-report}"


def do(page: Page, act: str, *, says: str) -> None:
    page.locator(f"#do-{act}").click()
    expect(page.locator(".locks__said .pill")).to_have_text(says)


def test_two_workers_try_and_the_late_one_is_refused(
    page: Page, theme: str, cache_server: RedisProcess
) -> None:
    page.goto("/locks")
    do(page, "A-take", says="Worker A took the lock.")
    expect(newest(page).locator(".pill").first).to_have_text("took")
    do(page, "B-take", says="Worker B was told that it is taken.")
    with cache_server.client() as client:
        client.pexpire(LOCK, 0)
    do(page, "B-take", says="Worker B took the lock.")
    do(page, "B-write", says="Worker B wrote the report.")
    do(page, "A-write", says="Worker A wrote late and was refused.")
    expect(page.locator(".locks__said")).to_contain_text("The report is worker B's")
    expect(page.locator(".lane path.s-no")).to_have_count(1)
    expect(page.locator("#keys")).to_contain_text("{nightly-report}")
    assert serious(page) == []


def test_the_lanes_move_by_themselves(page: Page) -> None:
    page.goto("/locks")
    with page.context.new_page() as other:
        other.goto("/locks")
        do(other, "A-take", says="Worker A took the lock.")
    expect(page.locator("#locks-lanes")).to_contain_text("Worker A took the lock")


def test_the_pressed_button_shows_its_progress_and_no_other_does(page: Page) -> None:
    page.goto("/locks")
    page.route("**/locks/report", lambda _: None)  # never answered
    page.locator("#do-B-take").click()
    expect(page.locator("#locks form.htmx-request")).to_have_count(1)
    dots = "button => getComputedStyle(button, '::after').content"
    assert page.locator("#do-B-take").evaluate(dots) != "none"
    assert page.locator("#do-A-take").evaluate(dots) == "none"


def test_the_focus_stays_on_the_button(page: Page) -> None:
    page.goto("/locks")
    page.locator("#do-A-take").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#do-A-release")).to_be_enabled()
    expect(page.locator("#do-A-take")).to_be_focused()


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_a_worker_takes_and_writes(page: Page) -> None:
    page.goto("/locks")
    do(page, "A-take", says="Worker A took the lock.")
    do(page, "A-write", says="Worker A wrote the report.")


def test_the_page_fits_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/locks")
    do(phone, "A-take", says="Worker A took the lock.")
    do(phone, "A-write", says="Worker A wrote the report.")
    phone.locator("#xp-release button[type=submit]").click()
    phone.locator("#xp-release [data-act=all-steps]").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(phone) == []


def test_redlock_survives_lost_servers_and_says_how_it_went(
    page: Page, launched: Launched, theme: str
) -> None:
    page.goto(f"{launched.url}/locks")
    start = page.get_by_role("button", name="Start five servers")
    nodes, said = page.locator(".five__nodes li"), page.locator("#five [role=status]")
    expect(start.or_(nodes.first)).to_be_visible()
    if start.is_visible():  # the other theme may have come first
        start.click()
    expect(page.locator(".five__nodes .pill--ok")).to_have_count(5)
    page.locator("#five-A-take").click()
    expect(said).to_contain_text("Worker A was granted it by")
    expect(newest(page)).to_contain_text("SET")
    page.locator("#five-A-release").click()
    expect(said).to_contain_text("released")
    page.get_by_role("button", name="Kill server 2").click()
    expect(nodes.nth(1).locator(".pill")).to_have_text("down")
    page.locator("#five-B-take").click()
    expect(nodes.nth(1)).to_contain_text("no answer")
    expect(said).to_contain_text("Worker B was granted it by")
    page.get_by_role("button", name="Restart server 2").click()
    expect(page.locator(".five__nodes .pill--ok")).to_have_count(5)
    page.locator("#five-B-release").click()
    expect(said).to_contain_text("released")
    assert serious(page) == []
