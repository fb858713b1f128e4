"""Topology as a newcomer sees it: servers, pools, slots, and a failover watched."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import newest
from tests.conftest import ROOT, free_port, wait_until
from webapp.settings import environ_with
from webapp.shop import shoppers

pytestmark = pytest.mark.browser

_LONG = 60_000  # ms: servers start, and one takes over


def test_a_newcomer_finds_where_a_key_lies(page: Page, theme: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="Topology").last.click()
    expect(page.get_by_role("heading", name="Connection pools")).to_be_visible()
    page.locator("#ask-keys").fill("a:{1} b:{1}")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#asked .pill--ok")).to_have_text("one slot")
    page.locator("#ask-keys").fill("a:{1} b:{2}")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#asked .pill--no")).to_have_text("CROSSSLOT")
    assert Axe().run(page).violations_count == 0


def test_nothing_scrolls_sideways_on_a_phone(phone: Page, theme: str) -> None:
    phone.goto("/topology")
    phone.get_by_role("button", name="Find", exact=True).click()
    expect(phone.locator("#asked .pill")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Iterator[str]:
    """`make demo-sentinel`: its URL."""
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    shutil.copy(seeded, folder / "shop.db")
    shoppers.write_rate(folder, 0)
    app = subprocess.Popen(
        [sys.executable, "-m", "webapp", "serve", "--set", "sentinel"],
        cwd=ROOT,
        env=environ_with({"INSTANCE_PATH": str(folder), "PORT": str(port)}),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until((folder / "vitals.json").exists, within_s=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        app.terminate()
        app.wait(20)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_primary_is_replaced_before_the_visitor_s_eyes(
    page: Page, demo: str
) -> None:
    page.goto(f"{demo}/topology")
    rows = page.locator("#topology-nodes tbody tr")
    expect(rows).to_have_count(6)
    before = rows.first.locator("code").first.inner_text()
    page.get_by_role("button", name="Kill the primary").click()
    expect(page.locator("#topology-nodes .pill--no").first).to_have_text(
        "down", timeout=_LONG
    )
    expect(page.locator("#failover-out .pill--ok").first).to_be_visible(timeout=_LONG)
    expect(page.locator("#failover-out")).to_contain_text(f"{before} gave way")
    expect(newest(page)).to_contain_text("RPUSH")
    expect(page.locator("#topology-nodes .pill--no")).to_have_count(0, timeout=_LONG)
