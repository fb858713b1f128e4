"""The order pipeline as people use it: order, kill a worker, requeue, Break it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, Launched, newest, serious
from tests.conftest import Served
from webapp.connection.urls import probe_client
from webapp.shop import pace
from webapp.shop.orders import BILLING, Orders
from webapp.shop.pace import PLAIN, Pace
from webapp.workers.fleet import Fleet
from webapp.workers.jobs import JOBS
from webapp.workers.worker import Worker

pytestmark = pytest.mark.browser

AT_ONCE = Pace(orders_per_min=0, work_ms=0, fail_percent=0, reclaim_ms=0)


@pytest.fixture
def orders(site: Served) -> Iterator[Orders]:
    client = probe_client(site.environ["REDIS_URL"])
    yield Orders(client, "rpl")
    client.close()


def stat(page: Page, name: str):  # type: ignore[no-untyped-def]
    return page.locator("#pipeline .stats div").filter(has_text=name).locator("dd")


def test_fifty_orders_come_and_a_worker_bills_them(
    page: Page, theme: str, orders: Orders
) -> None:
    page.goto("/streams")
    page.locator("#do-fifty").click()
    expect(page.locator("#streams-said")).to_have_text("Added 1 to 50")
    expect(newest(page).locator(".pill").first).to_have_text("added 1 to 50")
    expect(stat(page, "Lag")).to_have_text("50")
    worker = Worker(orders, JOBS[BILLING], "worker-1", pace=lambda: PLAIN)
    worker.begin()
    for _ in range(3):
        worker.turn()
    expect(stat(page, "Lag")).to_have_text("47", timeout=20_000)
    expect(page.locator("#lane-worker-1 rect.f-ok")).to_have_count(3)
    assert serious(page) == []


def test_a_dead_letter_is_requeued(page: Page, orders: Orders) -> None:
    worker = Worker(orders, JOBS[BILLING], "worker-1", pace=lambda: AT_ONCE)
    worker.begin()
    orders.client.xadd(orders.stream, {"payload": b"<script>xss()</script>"})
    for _ in range(6):
        worker._chores_at = 0
        worker.turn()
    page.goto("/streams")
    expect(stat(page, "Dead letter")).to_have_text("1")
    expect(page.locator("#pending")).to_contain_text("DecodeError")
    page.locator("#do-requeue").click()
    expect(page.locator("#streams-said")).to_have_text("1 requeued")
    expect(stat(page, "Dead letter")).to_have_text("0", timeout=20_000)


def test_the_board_stays_where_an_order_is_refused(
    page: Page, orders: Orders, complaints: Complaints
) -> None:
    """What was asked fails beside its button; the board is still there."""
    complaints.expect("503")
    page.goto("/streams")
    refused = {"status": 503, "body": "<div class='warn'>Redis does not answer.</div>"}
    page.route("**/streams/orders", lambda route: route.fulfill(**refused))  # type: ignore[arg-type]
    page.locator("#do-fifty").click()
    expect(page.locator("#streams-said")).to_have_text("Redis does not answer.")
    expect(page.locator("#pipeline .stats")).to_be_visible()


def test_the_faders_are_kept(page: Page, site: Served) -> None:
    page.goto("/streams")
    with page.expect_response(re.compile("/streams/pace")):
        page.locator("#pace-reclaim_s").fill("20")
    expect(page.locator("#streams-said")).to_contain_text("workers follow")
    assert pace.read(Path(site.environ["INSTANCE_PATH"])).reclaim_ms == 20_000
    page.reload()
    expect(page.locator("label[for=pace-reclaim_s] output")).to_have_text("20 s")
    page.locator("#pace-work_ms").fill("2000")
    expect(page.locator("label[for=pace-work_ms] output")).to_have_text("2 s")


def test_a_worker_is_killed_and_comes_back(page: Page, launched: Launched) -> None:
    """With real processes: the lane says so, and the tape shows what they do."""
    pace.write(launched.folder, Pace(orders_per_min=0, work_ms=500, fail_percent=0))
    fleet = Fleet(launched.folder)
    assert fleet.add() == "worker-1"
    page.goto(f"{launched.url}/streams")
    lane = page.locator("#lane-worker-1")
    expect(lane).to_contain_text("idle", timeout=30_000)
    page.locator("#do-one").click()
    expect(lane.locator("rect.f-ok")).to_have_count(1, timeout=30_000)
    expect(page.locator("#tape-roll")).to_contain_text("worker-1 handles order 1")
    page.locator("#do-worker-1").focus()
    page.keyboard.press("Enter")
    expect(lane).to_contain_text("killed")
    expect(page.locator("#streams-lanes + span")).to_contain_text("worker-1 killed")
    expect(page.locator("#do-worker-1")).to_have_text("Restart")
    expect(page.locator("#do-worker-1")).to_be_focused()
    page.locator("#do-worker-1").click()
    expect(lane).to_contain_text("idle", timeout=30_000)
    page.locator("#do-add").click()
    expect(page.locator("#lane-worker-2")).to_contain_text("idle", timeout=30_000)


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_an_order_is_placed_and_a_fader_set(page: Page) -> None:
    page.goto("/streams")
    page.locator("#do-one").click()
    expect(page.locator("#streams-said")).to_contain_text("Added")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator("h1")).to_have_text("Order pipeline")


def test_the_page_fits_a_phone(phone: Page, orders: Orders) -> None:
    phone.goto("/streams")
    phone.locator("#do-fifty").click()
    expect(phone.locator("#streams-said")).to_contain_text("Added")
    worker = Worker(orders, JOBS[BILLING], f"host-{os.getpid()}", pace=lambda: PLAIN)
    worker.begin()
    worker.turn()
    phone.locator("#xp-poison button[type=submit]").click()
    phone.locator("#xp-poison [data-act=all-steps]").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(phone) == []
