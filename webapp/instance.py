"""What one running app holds alone: its instance folder, its port, its sockets."""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_BACKLOG = 2048


class CannotStart(RuntimeError):
    """Why the app does not start, in a text for people."""


@contextmanager
def claimed(instance: Path) -> Iterator[IO[str]]:
    """Hold the instance folder alone. Raises CannotStart, saying who holds it."""
    instance.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (instance / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            url, _, pid = lock.read().strip().partition(" ")
            where = f"runs at {url} (process {pid})" if pid else "is starting"
            raise CannotStart(f"The app already {where}.") from None
        lock.truncate(0)
        yield lock


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, in which requests wait for the web server."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"Port {port} is taken. Choose another, for example PORT={port + 1}."
        else:
            text = f"Cannot listen on {host}, port {port}: {error.strerror}."
        raise CannotStart(text) from None
    with listener:
        yield listener


def make_private(folder: Path) -> None:
    """Make a folder for us alone. Under the temp directory it could be another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_ours or status.st_mode & 0o077:
        raise CannotStart(
            f"{folder} must be a folder of yours that is closed to others."
        )
