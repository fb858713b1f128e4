"""Who may use the admin panel: a link that works once, and sessions that end.

All of it is kept as files in the instance folder, so that it holds for every worker,
and also while Redis is away. The files hold digests: none of them lets anybody in.
"""

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path

_TOKEN_BYTES = 32
_LINK = "admin_link"
_SESSIONS = "admin_sessions"
LONGEST_S = 2 * 3600  # a session, however busy

_ATTEMPTS, _WINDOW_S = 5, 60.0
_MOST_ADDRESSES = 1024


def offer_link(instance: Path) -> str:
    """The token of a new one-time link; the one before no longer works."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    draft = instance / f"{_LINK}.new"
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.write(handle, _digest(token).encode())
    os.close(handle)
    draft.replace(instance / _LINK)
    return token


def take_link(instance: Path, token: str) -> bool:
    """Whether this is the token of the link; it then no longer works."""
    file = instance / _LINK
    try:
        if not hmac.compare_digest(file.read_text(), _digest(token)):
            return False
        file.unlink()  # of two at the same time, one finds nothing here
    except FileNotFoundError:
        return False
    return True


def withdraw_link(instance: Path) -> None:
    (instance / _LINK).unlink(missing_ok=True)


def is_password(given: str, wanted: str) -> bool:
    return hmac.compare_digest(_digest(given), _digest(wanted))


def begin(instance: Path) -> str:
    """The id of a new session."""
    folder = instance / _SESSIONS
    folder.mkdir(mode=0o700, exist_ok=True)
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > LONGEST_S:
                file.unlink()
    session = secrets.token_urlsafe(_TOKEN_BYTES)
    _file(instance, session).touch(mode=0o600)
    return session


def is_open(instance: Path, session: str) -> bool:
    """Whether it was begun here, did not end, and is not too old."""
    try:
        began = _file(instance, session).stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() - began <= LONGEST_S


def end(instance: Path, session: str) -> None:
    _file(instance, session).unlink(missing_ok=True)


def name_of(session: str) -> str:
    """What the record of changes calls a session."""
    return f"admin {_digest(session)[:8]}"


class Attempts:
    """At most five wrong answers a minute from one address, in each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Seconds until this address may try again; 0: now."""
        now = time.monotonic()
        with self._lock:
            wrong = self._wrong.get(address)
            if wrong is None or len(wrong) < _ATTEMPTS:
                return 0
            return max(0, int(wrong[0] + _WINDOW_S - now) + 1)

    def note(self, address: str) -> None:
        now = time.monotonic()
        with self._lock:
            wrong = self._wrong.setdefault(address, deque(maxlen=_ATTEMPTS))
            wrong.append(now)
            self._wrong.move_to_end(address)
            if len(self._wrong) > _MOST_ADDRESSES:
                self._wrong.popitem(last=False)


def _file(instance: Path, session: str) -> Path:
    return instance / _SESSIONS / _digest(session)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
