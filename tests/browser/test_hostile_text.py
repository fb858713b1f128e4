"""Hostile text in a real browser: FAULTS I8, with all 500 payloads, only when slow."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page

from tests import hostile
from tests.browser.conftest import Complaints
from tests.conftest import RedisProcess, Served, served
from webapp.admin import names, sign_in
from webapp.live.feed import SHOWN
from webapp.shop.scores import week_name
from webapp.shop.seed import FEATURED_IDS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def spoilt(
    tmp_path: Path, seeded: Path, cache_server: RedisProcess
) -> Iterator[Served]:
    """A site of its own: its shop is full of payloads."""
    shutil.copy(seeded, tmp_path / "shop.db")
    hostile.plant_names(tmp_path / "shop.db", hostile.PAYLOADS)
    with served(tmp_path, cache_server.url) as site:
        yield site


def test_five_hundred_payloads_run_nowhere(
    page: Page, spoilt: Served, cache_server: RedisProcess, complaints: Complaints
) -> None:
    """I8: feed, products, players, devices, keys, values, record, errors, and tape."""
    complaints.expect("status of 4")
    page.add_init_script("window.ran = 0; window.xss = () => { window.ran += 1; };")
    own = {"Sec-Fetch-Site": "same-origin"}
    token = sign_in.offer_link(Path(spoilt.environ["INSTANCE_PATH"]))
    page.request.post(f"{spoilt.url}/api/session/guest", headers=own)
    page.request.post(f"{spoilt.url}/admin/login", form={"token": token}, headers=own)
    for path in planted(cache_server):
        page.goto(spoilt.url + path)
        assert page.evaluate("window.ran") == 0, path
        assert page.locator("[xss], xss, iframe, object, base, video").count() == 0


def planted(server: RedisProcess) -> Iterator[str]:
    """Where payloads are to be seen, each time after they were put there."""
    week = f"rpl:leaderboard:week:{{season}}:{week_name(datetime.now(UTC).date())}"
    texts = hostile.PAYLOADS
    with server.client() as client:
        hostile.plant(client, week, texts)
        for first in range(0, len(texts), 10):
            yield f"/leaderboard?after={first}"
        for first in range(0, len(texts), 5):
            yield f"/catalog?after={first}"
        yield from (f"/catalog/{product}" for product in FEATURED_IDS[:2])
        yield from ("/", "/activity", "/admin/memory", "/admin/keys?pattern=*")
        for first in range(0, len(texts), SHOWN):
            hostile.plant(client, week, texts[first : first + SHOWN])
            yield "/feed"
            yield "/admin/record"
        for text in texts[::10]:
            hostile.plant_session(client, text)
            yield "/sessions"
            yield f"/{quote(text, safe='')}"
            key = quote(names.written(f"rpl:{text}".encode()), safe="")
            yield f"/admin/keys/key?role=durable&key={key}"
