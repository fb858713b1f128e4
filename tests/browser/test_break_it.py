"""Every Break it card, as somebody presses it."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import newest, serious
from webapp.http.variants import VARIANTS
from webapp.rooms import PAGES

pytestmark = pytest.mark.browser

PLACES = [page.url for page in PAGES if page.rooms]
PLACES += [f"/catalog?variant={variant.name}" for variant in VARIANTS[1:]]
SERVERS = pytest.param("/topology", marks=pytest.mark.slow)  # it starts and kills some
SHORT = ("/locks",)  # where the sliders' defaults make a run long
KEPT = ("xp-retry",)  # a promise that is kept; nothing is broken there


@pytest.mark.parametrize("place", [*PLACES, SERVERS])
def test_each_card_shows_the_flaw_beside_the_fix_and_its_receipts(
    page: Page, place: str
) -> None:
    page.goto(place)
    cards = page.locator("form.xp")
    assert cards.count() > 0
    for card in cards.all():
        for slider in card.locator("input[type=range]").all() * (place in SHORT):
            slider.fill(slider.get_attribute("min") or "")
        card.get_by_role("button", name="Run").click()
        expect(card.locator(".xp__say .pill")).to_have_class(
            re.compile("pill--ok" if card.get_attribute("id") in KEPT else "pill--no"),
            timeout=60_000,
        )
        expect(card.locator(".xp__out .pill--ok").first).to_be_visible()
        expect(newest(page)).to_be_visible()
        if card.locator(".replay").count():
            card.get_by_role("button", name="All steps").click()
    expect(page.locator("#request-failed")).to_be_hidden()
    assert serious(page) == []
