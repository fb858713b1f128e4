"""Secrets are planted, everything is used, and none is seen again: FAULTS J5 in full.

In this process, so that its log is read too, against servers with a password.
"""

import html
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from tests import routes
from tests.conftest import RedisProcess
from webapp import create_app
from webapp.admin import sign_in
from webapp.patterns.session_store import digest
from webapp.settings import Settings, from_environ

pytestmark = pytest.mark.server

REDIS = "canary-of-redis"
ADMIN = "canary-of-the-admin"
SECRET_KEY = "canary-of-the-secret-key"
PASSWORD = "canary-of-alice"
ALICE = {"username": "alice", "password": PASSWORD}


@pytest.fixture
def settings(
    instance: Path, redis_process: RedisProcess, durable_process: RedisProcess
) -> Settings:
    urls = {}
    for role, server in ("CACHE", redis_process), ("DURABLE", durable_process):
        with server.client() as client:
            client.config_set("requirepass", REDIS)
        urls[f"REDIS_{role}_URL"] = f"unix://:{REDIS}@{server.socket}"
    own = {"ADMIN_PASSWORD": ADMIN, "SECRET_KEY": SECRET_KEY, "DEMO": "1"}
    return from_environ({"INSTANCE_PATH": str(instance), **urls, **own})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    yield app
    app.extensions["clients"].close()
    app.extensions["catalog"].engine.dispose()


class Eyes:
    """A browser that remembers all it was answered, but for its own cookies."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client: FlaskClient = app.test_client()
        self.client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
        self.client.set_cookie("inside", "1")
        self.seen: list[str] = []
        self.secrets: set[str] = set()

    def open(self, method: str, path: str, **given: object) -> str:
        for _, server in self.app.extensions["clients"].items():
            server.connection_pool.disconnect()  # the tape then has HELLO and AUTH
        taped = {"X-Tape": "1"}
        with self.client.open(path, method=method, headers=taped, **given) as got:
            kept = [f"{n}: {v}" for n, v in got.headers if n != "Set-Cookie"]
            self.seen += [*kept, got.text]
        for name in ("sid", "admin"):
            if cookie := self.client.get_cookie(name):
                self.secrets |= {cookie.value, digest(cookie.value)}
        return self.seen[-1]

    def look_at_everything(self) -> None:
        for route in routes.safe(self.app):
            self.open("GET", route.path)
        for role, server in self.app.extensions["clients"].items():
            self.open("GET", f"/admin/keys?role={role}&pattern=*")
            self.open("GET", f"/admin/memory?role={role}")
            for key in server.scan_iter():
                asked = {"role": role, "key": key.decode()}
                self.open("GET", "/admin/keys/key", query_string=asked)

    def sign_in_every_way(self) -> None:
        self.open("POST", "/sessions/register", data=ALICE)
        self.open("POST", "/login", data=ALICE)
        self.open("POST", "/api/session", json=ALICE)
        self.open("POST", "/login", data=ALICE | {"password": f"{PASSWORD}-not"})
        self.open("POST", "/admin/login", data={"password": ADMIN})
        self.open("POST", "/admin/login", data={"password": f"{ADMIN}-not"})
        issued = self.open("POST", "/sessions/code")
        code = re.search(r'id="code"><code>([A-Z0-9]{8})</code>', issued)
        assert code
        self.seen[-1] = issued.replace(
            f"<code>{code[1]}</code>", ""
        )  # shown there, once
        self.secrets.add(code[1])
        for _ in range(2):
            self.open("POST", "/login/code", data={"code": code[1]})
        changed = {"old": PASSWORD, "new": f"{PASSWORD}-new"}
        self.open("POST", "/sessions/password", data=changed)


def test_no_secret_is_seen_again(
    app: Flask,
    settings: Settings,
    durable_process: RedisProcess,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """J5: pages, panel, tape, metrics, probes, errors, the log, and repr."""
    caplog.set_level(logging.DEBUG)
    eyes = Eyes(app)
    token = sign_in.offer_link(settings.instance_path)
    eyes.sign_in_every_way()
    eyes.look_at_everything()
    with redis.Redis.from_url(settings.redis_urls["cache"]) as client:
        # From now on the app's password is wrong.
        client.config_set("requirepass", "another")
    durable_process.kill()
    for path in ("/", "/catalog/7", "/sessions", "/readyz", "/metrics", "/admin/keys"):
        eyes.open("GET", path)
    eyes.open("GET", "/admin/keys?pattern=*")
    eyes.open("POST", "/login", data=ALICE)
    clients = app.extensions["clients"]
    shown = [settings, app, clients, clients.cache, clients.cache.connection_pool]
    shown += [*clients.breakers.values(), app.extensions["hub"]]
    eyes.seen += [caplog.text, *map(repr, shown), *map(str, shown)]
    assert "invalid username-password pair" in caplog.text
    eyes.secrets |= {REDIS, ADMIN, SECRET_KEY, PASSWORD, token, "scrypt:"}
    assert len(eyes.secrets) >= 12
    for text in map(html.unescape, eyes.seen):
        assert not [secret for secret in eyes.secrets if secret in text], text
