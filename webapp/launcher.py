"""Starts the whole app, keeps it running, and leaves nothing behind.

The embedded servers, the web server, the simulated shoppers and the workers are
children of this one process. It starts them in that order, starts again what ends, and
ends when it is told to or when the web server ends.
"""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from select import select
from threading import Event, Thread

import msgspec
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from webapp import process
from webapp.admin import sign_in
from webapp.connection.embedded import EmbeddedServer, ServerError, find_binary
from webapp.connection.roles import connect
from webapp.connection.scratch import Keeper, Wishes
from webapp.connection.sets import SETS, LocalSet, Member
from webapp.instance import CannotStart, claimed, listening, make_private
from webapp.live.setfile import SetFile, write_set
from webapp.live.vitals import Vitals
from webapp.settings import Settings, environ_with
from webapp.shop import models
from webapp.shop.catalog import replay_outbox
from webapp.shop.database import open_database
from webapp.shop.seed import is_seeded, seed
from webapp.workers.fleet import Fleet
from webapp.workers.supervisor import Supervisor

_TICK_S = 0.25
_CHORES_S = 1.0
_WEB_START_S = 30.0
_WEB_END_S = 3.75  # its own grace is 3 s: what was asked before is answered
_SERVERS_END_S = 0.5
_WEB = (sys.executable, "-m", "gunicorn", "-c", "python:webapp.http.gunicorn")
_APP = "webapp.http.gunicorn:make_app()"
_SHOPPERS = (sys.executable, "-m", "webapp.shop.shoppers")
_FAKE = "fake://"
_LIMITED = """\
No Redis server was found: limited mode, with an imitation inside one worker. Memory,
eviction and latency are not shown. For the whole app install redis-server 7 or later,
or give the URL of one in REDIS_URL."""


class AskedToEnd(Exception):
    """A signal came while the app was starting."""


def serve(settings: Settings, *, set_kind: str | None = None) -> int:
    """Run the app until it is told to end; returns the exit code.

    With a kind of `SETS` it starts such a set and runs on it.
    """
    try:
        with (
            claimed(settings.instance_path) as lock,
            listening(settings.host, settings.port) as listener,
        ):
            launcher = Launcher(settings, listener, set_kind)
            print(launcher.url, os.getpid(), file=lock, flush=True)
            return launcher.run()
    except (CannotStart, ServerError) as error:
        print(error, file=sys.stderr)
        return 1


def fill_database(settings: Settings, check: Callable[[], None]) -> bool:
    """Seed the database if it is empty, telling how far it is; False: it was not.

    `check` is called often meanwhile; what it raises ends the work.
    """
    engine = open_database(settings.database_url)
    try:
        if is_seeded(engine):
            models.metadata.create_all(engine)  # tables that came later
            return False
        tell = Progress("Filling the shop's database")

        def progress(done: int, total: int) -> None:
            check()
            tell(done, total)

        seed(engine, progress)
        return True
    finally:
        engine.dispose()


class Progress:
    """One line that counts up on a terminal, else a line for each fifth."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._told = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // total
        live = sys.stdout.isatty()
        step = percent if live else percent - percent % 20
        if step == self._told:
            return
        self._told = step
        back = "\r" if live else ""
        end = "" if live and done < total else "\n"
        print(f"{back}{self._title}: {step} %", end=end, flush=True)


class Launcher:
    """The children, and the loop that watches them. Runs in the main thread."""

    def __init__(
        self, settings: Settings, listener: socket.socket, set_kind: str | None = None
    ) -> None:
        self._listener = listener
        self._address = listener.getsockname()[:2]
        self._set = _local_set(settings, set_kind) if set_kind else None
        if self._set is None:
            self._settings, self._servers = _equipped(settings)
        else:
            self._settings, self._servers = _on(self._set, settings), []
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._ended = Event()
        self._web: process.Process | None = None
        self._shoppers: process.Process | None = None
        self._workers: Supervisor | None = None
        self._kept: list[process.Kept] = []
        self._scratch: Keeper | None = None

    @property
    def url(self) -> str:
        host = self._settings.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self._address[1]}"

    def run(self) -> int:
        self._take_signals()
        try:
            self._start_servers()
            fill_database(self._settings, self._check)
            self._keep_scratch()
            self._start_web()
            self._start_shoppers()
            self._hire_workers()
            return self._watch()
        except AskedToEnd:
            return 0
        finally:
            self._end()

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started with nohup
            signal.signal(number, lambda number, _: self._signals.put(number))

    def _check(self) -> None:
        if not self._signals.empty():
            raise AskedToEnd

    def _start_servers(self) -> None:
        if self._set is not None:
            self._start_set(self._set)
        if self._settings.sockets != self._settings.instance_path:
            make_private(self._settings.sockets)
        for server in self._servers:
            server.start()
        for server in self._servers:
            server.await_answer()
            name = f"The {server.role} server"
            self._kept.append(process.Kept(name, server.start, server.trouble))

    def _start_set(self, servers: LocalSet) -> None:
        print(f"Starting {len(servers.members)} servers.", flush=True)
        servers.start(self._check)
        self._tell_of(servers)
        for member in servers.members:

            def start_again(member: Member = member) -> None:
                member.start()
                self._tell_of(servers)

            name = f"The {member.name} at {member.address}"
            self._kept.append(process.Kept(name, start_again, member.trouble))

    def _tell_of(self, servers: LocalSet) -> None:
        known = {m.address: m.child.pid for m in servers.members if m.child}
        write_set(self._settings.instance_path, SetFile(url=servers.url, pids=known))

    def _start_web(self) -> None:
        """Start the web server on our socket, and wait until it answers."""
        metrics = _emptied(self._settings.instance_path / "metrics")
        self._environ = self._environ_of_children(metrics)
        number = self._listener.fileno()
        self._web = process.start(
            [*_WEB, "--bind", f"fd://{number}", _APP],
            environ=self._environ,
            pass_fds=[number],
        )
        self._listener.close()
        Thread(target=self._do_chores, daemon=True).start()
        self._await_web(self._web)
        print(f"Redis Patterns Live: {self.url}", flush=True)
        self._offer_admin()

    def _offer_admin(self) -> None:
        """On loopback the terminal is trusted: its link makes an admin, once."""
        sign_in.withdraw_link(self._settings.instance_path)
        if self._settings.is_loopback and not self._settings.admin_password:
            token = sign_in.offer_link(self._settings.instance_path)
            print(f"Admin, once: {self.url}/admin/login?token={token}", flush=True)

    def _await_web(self, web: process.Process) -> None:
        """One request that waits in the socket until a worker takes it."""
        deadline = time.monotonic() + _WEB_START_S
        host, port = self._address
        probe = HTTPConnection(host, port, timeout=_WEB_START_S)
        try:
            probe.request("GET", "/healthz")
            while not select([probe.sock], [], [], _TICK_S / 5)[0]:
                self._check()
                if web.poll() is not None or time.monotonic() > deadline:
                    raise CannotStart("The web server does not start.")
            if probe.getresponse().status >= 500:
                raise CannotStart("The web server starts, but does not work.")
        except (OSError, HTTPException) as error:
            raise CannotStart(f"The web server does not start: {error}.") from None
        finally:
            probe.close()

    def _start_shoppers(self) -> None:
        if self._settings.demo:
            self._send_shoppers()
            kept = process.Kept(
                "The shoppers", self._send_shoppers, self._shoppers_trouble
            )
            self._kept.append(kept)

    def _keep_scratch(self) -> None:
        """Servers that pages of a demo may kill; none runs before one is asked for."""
        if self._settings.demo and (binary := find_binary()):
            wishes = Wishes(self._settings.instance_path, self._settings.sockets)
            self._scratch = Keeper(binary, wishes)

    def _hire_workers(self) -> None:
        """They share the durable server; an imitation of one cannot be shared."""
        if self._settings.redis_urls["durable"].startswith(_FAKE):
            return
        fleet = Fleet(self._settings.instance_path)
        fleet.prepare()
        self._workers = Supervisor(fleet, self._environ)

    def _send_shoppers(self) -> None:
        self._shoppers = process.start(_SHOPPERS, environ=self._environ)

    def _shoppers_trouble(self) -> str | None:
        ended = self._shoppers is None or self._shoppers.poll() is not None
        return "ended" if ended else None

    def _watch(self) -> int:
        while True:
            try:
                self._signals.get(timeout=_TICK_S)
            except Empty:
                pass
            else:
                return 0
            if self._web and (code := self._web.poll()) is not None:
                print(f"The web server ended with code {code}.", file=sys.stderr)
                return code if code > 0 else 1
            for kept in self._kept:
                kept.look_after()
            if self._scratch:
                self._scratch.look_after()
            if self._workers:
                self._workers.look_after()

    def _do_chores(self) -> None:
        """In a thread of their own: they may wait for Redis or the database."""
        chores = _chores(self._settings)
        while True:
            for chore in chores:
                with suppress(RedisError, SQLAlchemyError):  # again in a second
                    chore()
            if self._ended.wait(_CHORES_S):
                return

    def _end(self) -> None:
        """Who uses the servers first, so that nobody misses one."""
        self._ended.set()
        users = [child for child in (self._web, self._shoppers) if child]
        users += self._workers.processes if self._workers else []
        process.end(users, within_s=_WEB_END_S)
        servers = [server.child for server in self._servers if server.child]
        servers += self._scratch.processes if self._scratch else []
        process.end(servers, within_s=_SERVERS_END_S)
        if self._set is not None:
            self._set.end()

    def _environ_of_children(self, metrics: Path) -> dict[str, str]:
        own = {"PORT": str(self._address[1]), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        fakes = {
            f"REDIS_{role.upper()}_URL": url
            for role, url in self._settings.redis_urls.items()
            if url.startswith(_FAKE)
        }
        if self._set is not None:
            own |= {"REDIS_URL": self._set.url, "DEMO": str(int(self._settings.demo))}
        if fakes:  # an imitation lives in one process; its settings look configured
            own |= {"WORKERS": "1", "DEMO": str(int(self._settings.demo)), **fakes}
        return environ_with(own)


def _chores(settings: Settings) -> list[Callable[[], object]]:
    """What is done once a second."""
    chores: list[Callable[[], object]] = [Vitals(settings).tick]
    if settings.redis_urls["cache"].startswith(_FAKE):
        return chores  # the imitation in the worker is out of reach, and never away
    engine = open_database(settings.database_url)
    cache = connect(settings.redis_urls, max_connections=2).cache
    return [*chores, lambda: replay_outbox(engine, cache, settings.namespace)]


def _local_set(settings: Settings, kind: str) -> LocalSet:
    """Raises CannotStart where it would not be used, or cannot be started."""
    if len(settings.embedded_roles) < len(settings.redis_urls):
        raise CannotStart(f"A {kind} set brings its own servers: unset REDIS_URL.")
    binary = find_binary()
    if binary is None:
        raise CannotStart("A set needs valkey-server or redis-server, 7 or later.")
    return SETS[kind](binary, _emptied(settings.instance_path / kind))


def _on(servers: LocalSet, settings: Settings) -> Settings:
    urls = dict.fromkeys(settings.redis_urls, servers.url)
    return msgspec.structs.replace(settings, redis_urls=urls, embedded_roles=())


def _equipped(settings: Settings) -> tuple[Settings, list[EmbeddedServer]]:
    """The servers to start; if there is no program for them, settings without."""
    if not settings.embedded_roles:
        return settings, []
    if binary := find_binary():
        folders = settings.instance_path, settings.sockets
        roles = settings.embedded_roles
        return settings, [EmbeddedServer(role, binary, *folders) for role in roles]
    print(_LIMITED, flush=True)
    fakes = {role: f"{_FAKE}{role}" for role in settings.embedded_roles}
    urls = {**settings.redis_urls, **fakes}
    return msgspec.structs.replace(settings, redis_urls=urls, embedded_roles=()), []


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
