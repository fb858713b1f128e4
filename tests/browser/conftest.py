"""Chromium beside the app as users run it; what a page complains of fails its test."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    WebError,
    expect,
)

from tests.conftest import (
    ROOT,
    RedisProcess,
    Served,
    free_port,
    redis_server,
    served,
    wait_until,
)
from webapp.shop import shoppers

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=20_000)  # a busy machine is slow and not wrong


@pytest.fixture(scope="session")
def browser_type_launch_args(
    browser_type_launch_args: dict[str, Any],
) -> dict[str, Any]:
    """The shell is Chromium without windows: the same pages for less of the machine."""
    names = "chromium-headless-shell", "chromium", "google-chrome"
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.fail(f"no Chromium here: apt-get install {names[0]}", pytrace=False)
    return browser_type_launch_args | {
        "executable_path": chromium,
        "args": list(_FLAGS),
    }


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    return browser_context_args | {"viewport": {"width": 1440, "height": 900}}


@pytest.fixture(scope="session")
def cache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with redis_server(tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture(scope="session")
def site(
    tmp_path_factory: pytest.TempPathFactory, seeded: Path, cache_server: RedisProcess
) -> Iterator[Served]:
    """The web server that most journeys share; there are no vitals, and no shoppers."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(seeded, folder / "shop.db")
    with served(folder, cache_server.url) as site:
        yield site


@pytest.fixture(scope="session")
def base_url(site: Served) -> str:
    return site.url


@dataclass
class Launched:
    """`python -m webapp serve`, with a cache server that it does not restart."""

    folder: Path
    cache: RedisProcess
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environ = os.environ | {
            "INSTANCE_PATH": str(self.folder),
            "REDIS_CACHE_URL": self.cache.url,
            "PORT": str(self.port),
            "DEMO": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webapp", "serve"],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
        )
        vitals = self.folder / "vitals.json"
        vitals.unlink(missing_ok=True)
        wait_until(vitals.exists, within_s=20)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="module")
def launched(
    tmp_path_factory: pytest.TempPathFactory, seeded: Path
) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("launched")
    shutil.copy(seeded, folder / "shop.db")
    (folder / "workers").mkdir(mode=0o700)  # nobody works until a test says so
    shoppers.write_rate(folder, 0)
    with redis_server(tmp_path_factory.mktemp("cache")) as cache:
        app = Launched(folder, cache)
        app.start()
        yield app
        app.stop()


@pytest.fixture(autouse=True)
def nothing_cached(site: Served, cache_server: RedisProcess) -> None:
    """Each journey starts with an empty cache."""
    with cache_server.client() as client:
        client.flushall()


@pytest.fixture
def guest(page: Page, site: Served, nothing_cached: None) -> None:
    """Somebody signed in as a guest in this browser."""
    own = {"Sec-Fetch-Site": "same-origin"}
    answer = page.request.post(f"{site.url}/api/session/guest", headers=own)
    assert answer.ok


def newest(page: Page) -> Locator:
    """The receipt on top of the tape."""
    return page.locator("#tape-roll .receipt.is-first")


def serious(page: Page) -> list[str]:
    """What axe calls serious or critical, with the elements it means."""
    options = {"resultTypes": ["violations"]}  # what passes is not told, and costs
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@dataclass
class Complaints:
    """What a page may complain about, and what it did complain about."""

    expected: tuple[str, ...] = ()
    heard: list[str] = field(default_factory=list)

    def expect(self, *parts: str) -> None:
        """Complaints with one of these texts in them belong to the journey."""
        self.expected += parts

    def unexpected(self) -> list[str]:
        return [h for h in self.heard if not any(part in h for part in self.expected)]

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.heard.append(f"console: {message.text} {where}")

    def on_error(self, error: WebError) -> None:
        self.heard.append(f"page: {error.error}")

    def on_request(self, request: Request) -> None:
        if request.url.endswith("/csp"):
            self.heard.append(f"policy: {request.post_data}")

    def on_failure(self, request: Request) -> None:
        # Leaving a page aborts what it was still waiting for.
        if request.failure != "net::ERR_ABORTED":
            self.heard.append(f"request: {request.failure} {request.url}")


@pytest.fixture(autouse=True)
def complaints(context: BrowserContext) -> Iterator[Complaints]:
    """No error in the console, no failed request, no report of a broken policy."""
    complaints = Complaints()
    context.on("console", complaints.on_console)
    context.on("weberror", complaints.on_error)
    context.on("request", complaints.on_request)
    context.on("requestfailed", complaints.on_failure)
    yield complaints
    assert complaints.unexpected() == []


@pytest.fixture(params=["light", pytest.param("dark", marks=pytest.mark.slow)])
def theme(request: pytest.FixtureRequest, context: BrowserContext, site: Served) -> str:
    """The journey in each theme; the second one only in `make test-all`."""
    name: str = request.param
    context.add_cookies([{"name": "theme", "value": name, "url": site.url}])
    return name


@pytest.fixture
def phone(page: Page) -> Page:
    page.set_viewport_size({"width": 390, "height": 844})
    return page
