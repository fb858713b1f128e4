"""Sessions as people use them: one click, two devices, a code, Break it."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Complaints, newest
from tests.conftest import Served

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture
def other(browser: Browser, site: Served) -> Iterator[Page]:
    """A second browser, with cookies of its own."""
    context = browser.new_context(base_url=site.url)
    yield context.new_page()
    context.close()


def become_guest(page: Page) -> str:
    """One click; answers the guest's name."""
    page.goto("/sessions")
    page.get_by_role("button", name="Sign in as a new guest").click()
    title = page.locator("#account-title")
    expect(title).to_have_text(re.compile("^guest-"))
    return title.inner_text()


def devices(page: Page) -> Locator:
    return page.locator(".devices li")


def code(page: Page) -> str:
    page.get_by_role("button", name="Get a code").click()
    return page.locator("#code").inner_text()


def use_code(page: Page, text: str) -> None:
    page.goto("/login")
    page.get_by_label("Code from another device").fill(text)
    page.get_by_role("button", name="Use the code").click()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_one_click_signs_in_and_the_tape_the_keys_and_the_rail_say_so(
    page: Page, theme: str
) -> None:
    page.goto("/sessions")
    expect(page.locator("#who")).to_contain_text("Not signed in")
    name = become_guest(page)
    expect(newest(page).locator(".pill")).to_have_text("signed in")
    expect(newest(page)).to_contain_text("session_store/start")
    expect(page.locator("#who")).to_contain_text(name)
    expect(page.locator("#keys li")).to_have_count(2)
    expect(page.locator("#keys li").first).to_contain_text("HASH")
    assert serious(page) == []


def test_a_code_signs_another_browser_in_and_either_can_end_the_other(
    page: Page, other: Page, theme: str
) -> None:
    name = become_guest(page)
    use_code(other, code(page))
    expect(other.locator("#account-title")).to_have_text(name)
    page.reload()
    expect(devices(page)).to_have_count(2)
    theirs = devices(page).filter(has_not=page.locator(".pill"))
    theirs.get_by_role("button", name=re.compile("^Sign out")).click()
    expect(devices(page)).to_have_count(1)
    other.reload()
    expect(other.locator("#account-title")).to_have_text("Not signed in")


def test_a_code_works_once(page: Page, other: Page, complaints: Complaints) -> None:
    become_guest(page)
    text = code(page)
    use_code(other, text)
    other.get_by_role("button", name="Sign out", exact=True).click()
    expect(other.locator("#account-title")).to_have_text("Not signed in")
    use_code(other, text)
    field = other.get_by_label("Code from another device")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("does not work"))


def test_a_shopper_registers_signs_out_and_in_again(page: Page) -> None:
    page.goto("/login")
    form = page.get_by_role("form", name="Register")
    form.get_by_label("New name").fill("ada")
    form.get_by_label("New password").fill(PASSWORD)
    form.get_by_role("button", name="Register").click()
    expect(page.locator("#account-title")).to_have_text("ada")
    page.get_by_role("button", name="Sign out", exact=True).click()
    form = page.get_by_role("form", name="Sign in")
    form.get_by_label("Name").fill("Ada")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Sign in").click()
    expect(page.locator("#account-title")).to_have_text("ada")
    page.get_by_role("button", name="Sign out everywhere").click()
    expect(page.locator("#account-title")).to_have_text("Not signed in")
    expect(page.locator("#who")).to_contain_text("Not signed in")


def test_a_wrong_password_is_told_at_the_field(
    page: Page, complaints: Complaints
) -> None:
    complaints.expect("status of 422")
    page.goto("/login")
    form = page.get_by_role("form", name="Sign in")
    form.get_by_label("Name").fill("nobody")
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Sign in").click()
    field = page.get_by_role("form", name="Sign in").get_by_label("Name")
    expect(field).to_have_accessible_description(re.compile("no such name"))
    expect(field).to_have_value("nobody")


def test_an_anonymous_visitor_of_the_catalog_edits_after_one_click(
    page: Page, theme: str
) -> None:
    page.goto("/catalog/1046")
    expect(page.get_by_role("button", name="Edit price")).to_be_disabled()
    page.get_by_role("button", name="Sign in as a guest").click()
    expect(page.locator("#who")).to_contain_text("guest-")
    page.get_by_role("button", name="Edit price").click()
    page.get_by_label("Price in €").fill("21.00")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#shop .price")).to_have_text("€ 21.00")


def test_after_the_sign_in_there_is_a_way_back(page: Page) -> None:
    page.goto("/catalog/1046")
    page.get_by_role("link", name="Other ways").click()
    page.get_by_role("button", name="Sign in as a new guest").click()
    page.get_by_role("link", name="Go on").click()
    expect(page).to_have_url(re.compile("/catalog/1046$"))


def test_only_the_renamed_field_is_written(page: Page) -> None:
    become_guest(page)
    page.get_by_label("See inside Lua").check()
    page.get_by_label("Its name").fill("Stage laptop")
    page.get_by_role("button", name="Rename").click()
    expect(devices(page)).to_contain_text("Stage laptop")
    expect(newest(page).locator(".cmd--in b", has_text="HSET")).to_have_count(1)


@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_people_sign_in_and_out(page: Page) -> None:
    become_guest(page)
    page.get_by_role("button", name="Get a code").click()
    expect(page.locator("#code")).to_have_text(re.compile("^[A-Z0-9]{8}$"))
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("#account-title")).to_have_text("Not signed in")


def test_the_page_fits_a_phone(phone: Page, theme: str) -> None:
    become_guest(phone)
    code(phone)
    for name in ("fixation", "undone-sign-out"):
        phone.locator(f"#xp-{name} button[type=submit]").click()
        phone.locator(f"#xp-{name} [data-act=all-steps]").click()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(phone) == []
