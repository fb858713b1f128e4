"""Five scratch servers that a page may kill, stop, and start again empty.

A web process says in small files what it wants, the launcher reads them and acts. So
a page never names a process: the launcher knows its own children.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast, get_args

from webapp.connection.embedded import EmbeddedServer, ServerError
from webapp.process import Process

State = Literal["up", "paused", "down"]

NUMBERS = range(1, 6)
KEPT_S = 600  # after somebody asked for them last
RESTORED_S = 60  # one that was killed or stopped comes back by itself
_WANTED = "wanted"


class Wishes:
    """What each server should be."""

    def __init__(self, instance: Path, sockets: Path) -> None:
        self._folder, self._sockets = instance / "scratch", sockets

    @property
    def are_heard(self) -> bool:
        """Whether there is a launcher that acts on them."""
        return self._folder.is_dir()

    def are_heard_from_now_on(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)

    @property
    def wanted(self) -> bool:
        return _age_s(self._folder / _WANTED) < KEPT_S

    def want(self) -> None:
        """Have all of them for a while."""
        (self._folder / _WANTED).touch()

    def state(self, n: int) -> State:
        file = self._folder / str(n)
        with suppress(OSError):
            state = file.read_text()
            if state in get_args(State) and _age_s(file) < RESTORED_S:
                return cast("State", state)
        return "up"

    def ask(self, n: int, state: State) -> None:
        (self._folder / str(n)).write_text(state)

    def folder(self, n: int) -> Path:
        """Of the socket, the log and the data of one server."""
        return self._sockets / f"n{n}"

    def socket(self, n: int) -> Path:
        return self.folder(n) / "lab.sock"


class Keeper:
    """Starts, stops and kills them as they are wished; part of the launcher's loop."""

    def __init__(self, binary: Path, wishes: Wishes) -> None:
        self._wishes = wishes
        self._servers: dict[int, EmbeddedServer] = {}
        self._paused: set[int] = set()
        for n in NUMBERS:
            folder = wishes.folder(n)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._servers[n] = EmbeddedServer("lab", binary, folder, folder)
        wishes.are_heard_from_now_on()

    @property
    def processes(self) -> list[Process]:
        return [server.child for server in self._servers.values() if server.child]

    def look_after(self) -> None:
        """Only from the main thread: Linux ties a child's life to the thread."""
        wanted = self._wishes.wanted
        for n, server in self._servers.items():
            self._see_to(n, server, self._wishes.state(n) if wanted else "down")

    def _see_to(self, n: int, server: EmbeddedServer, wished: State) -> None:
        if wished == "down":
            if server.is_running:
                server.kill()
            return
        if not server.is_running:
            self._paused.discard(n)
            with suppress(ServerError):  # the page shows that it does not answer
                server.start()
        if server.child and (wished == "paused") != (n in self._paused):
            self._paused ^= {n}
            paused = n in self._paused
            os.kill(server.child.pid, signal.SIGSTOP if paused else signal.SIGCONT)


def _age_s(file: Path) -> float:
    """Since it was written; for ever, where there is none."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return float("inf")
