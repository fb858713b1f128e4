"""The websocket: everything is checked before the upgrade, and bounded after it.

Each socket holds one thread of the web server, which alone sends messages; the
library's own thread reads, and answers pings. The library sends without a deadline
and reads without a limit, so it gets the connection through `BoundedSocket`.
"""

import base64
import binascii
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from flask import Blueprint, Flask, g, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, ServiceUnavailable
from wsproto.utilities import LocalProtocolError

from webapp.live.hub import TOPICS, Hub
from webapp.live.outbox import FeedNow, Message, Outbox, frame

_PING_S = 20
_LARGEST_MESSAGE = 16 * 1024
_SEND_WITHIN_S = 5.0
_LINGER_S = 0.5  # for the other side to hear the goodbye
_BUDGET_BYTES, _BUDGET_S = 64 * 1024, 10.0  # a page says nothing but pongs
_SEND_BUFFER_BYTES = 128 * 1024
_POLL_S = 1.0  # how long a frame that was begun waits for its end to be sent, at most
_EVENT_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,9}")
_FULL_RETRY_S = 5
_CLOSE = b"\x88"  # how a close frame begins


class UpgradeRequired(HTTPException):
    code = 426
    description = "This is a websocket: version 13 is spoken here."

    def get_headers(self, *args: object, **kwargs: object) -> list[tuple[str, str]]:
        own = Headers({"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
        return [*super().get_headers(), *own]


class SlowReader(OSError):
    """The other side did not take a message in time."""


class Goodbye(NamedTuple):
    code: int
    text: str


_ENDING = Goodbye(1001, "The app is ending.")
_FLOOD = Goodbye(1008, "Nothing is expected from a page.")
_SLOW = Goodbye(1013, "Messages were not taken in time.")
_OVER = Goodbye(1000, "")


class BoundedSocket:
    """A connection that sends all or fails in time, and reads within a budget.

    `ended` is called when there is nothing more to read, or too much.
    """

    def __init__(
        self, connection: socket.socket, ended: Callable[[], None] = lambda: None
    ) -> None:
        self.flooded = False
        self._connection = connection
        self._ended = ended
        self._sending = threading.Lock()
        self._rest = b""  # of a frame that was begun
        self._gave_up = False
        self._said_goodbye = False  # after a close frame nothing may follow
        self._read_since, self._read_bytes = time.monotonic(), 0
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def is_midway(self) -> bool:
        """Whether a frame was begun, whose end the next `send` brings."""
        return bool(self._rest)

    def offer(self, frame: bytes) -> bool:
        """Begin to send it, if that needs no waiting; False: it was not taken."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            if self._gave_up or self._said_goodbye or self._rest:
                return False
            if not self._is_ready(select.POLLOUT, 0):
                return False
            self._rest = frame[self._connection.send(frame, socket.MSG_DONTWAIT) :]
            return True
        except OSError:
            return False  # full, or broken: the socket's own thread finds out
        finally:
            self._sending.release()

    def send(self, data: bytes) -> int:
        """Send all of it. Raises SlowReader, after which only what fits is sent."""
        with self._sending:
            if self._said_goodbye:
                return len(data)
            self._said_goodbye = data[:1] == _CLOSE
            if self._gave_up:
                return self._connection.send(data, socket.MSG_DONTWAIT)
            deadline = time.monotonic() + _SEND_WITHIN_S
            begun, rest = bool(self._rest), memoryview(self._rest + data)
            whole, self._rest = len(rest), b""
            while rest:
                if not self._is_ready(select.POLLOUT, deadline):
                    self._give_up(midway=begun or len(rest) < whole)
                rest = rest[self._connection.send(rest, socket.MSG_DONTWAIT) :]
        return len(data)

    def recv(self, size: int) -> bytes:
        """What came; once over the budget, nothing until the connection ends."""
        data = self._connection.recv(size)
        if not self._allows(len(data)):
            self.flooded = True
            self._ended()
        while data and self.flooded:
            data = self._connection.recv(size)
        return data

    def close(self) -> None:
        """The web server closes the connection; the library asks too early."""
        self._ended()

    def finish(self) -> None:
        """Let the other side hear the last words: closed too soon, they are lost."""
        deadline = time.monotonic() + _LINGER_S
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while self._is_ready(select.POLLIN, deadline):
                with suppress(BlockingIOError):  # the library's thread had it
                    if not self._connection.recv(_LARGEST_MESSAGE, socket.MSG_DONTWAIT):
                        break
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _give_up(self, *, midway: bool) -> None:
        self._gave_up = True
        if midway:  # nothing that follows could be told from the rest of it
            self._connection.shutdown(socket.SHUT_WR)
        raise SlowReader

    def _allows(self, size: int) -> bool:
        now = time.monotonic()
        if now - self._read_since > _BUDGET_S:
            self._read_since, self._read_bytes = now, 0
        self._read_bytes += size
        return self._read_bytes <= _BUDGET_BYTES

    def _is_ready(self, event: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._connection, event)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def init_app(app: Flask, hub: Hub) -> None:
    app.config["SOCK_SERVER_OPTIONS"] = {
        "ping_interval": _PING_S,
        "max_message_size": _LARGEST_MESSAGE,
        "thread_class": partial(threading.Thread, daemon=True),
    }
    bp = Blueprint("live", __name__)
    sock = Sock()

    @bp.before_request
    def admit() -> None:
        """The library upgrades before the view runs, so all is decided here."""
        key = _handshake_key()
        _require_same_origin()
        outbox = hub.admit(_topics(), _after())
        if outbox is None:
            raise ServiceUnavailable(
                "All places for live pages are taken.", retry_after=_FULL_RETRY_S
            )
        g.outbox = outbox
        connection = BoundedSocket(request.environ["gunicorn.socket"], outbox.wake)
        request.environ = {
            "gunicorn.socket": connection,
            "HTTP_HOST": request.host,
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "Upgrade",
            "HTTP_SEC_WEBSOCKET_KEY": key,
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
        }

    @bp.teardown_request
    def leave(_: BaseException | None) -> None:
        if "outbox" in g:
            hub.leave(g.outbox)

    @sock.route("/ws/live", bp=bp)  # type: ignore[untyped-decorator]
    def socket(ws: Server) -> None:
        """What changes on the page, as `{topic, id, data, html?}`."""
        outbox: Outbox = g.outbox
        outbox.attach(ws.sock)
        try:
            with suppress(ConnectionClosed, LocalProtocolError, OSError):
                goodbye = _serve(ws, outbox)  # raises where the visitor went on
                outbox.attach(None)  # nothing follows the last words
                ws.close(*goodbye)
        finally:
            outbox.attach(None)
            ws.thread.join(_LINGER_S / 2)  # it may be saying why it ended
            ws.sock.finish()

    app.register_blueprint(bp)


def _serve(ws: Server, outbox: Outbox) -> Goodbye:
    """Send until there is a reason not to; says which."""
    dropped = 0
    while ws.connected:
        ready = outbox.get(_POLL_S)
        if outbox.closed:
            return _ENDING
        if ws.sock.flooded:
            return _FLOOD
        while ws.receive(timeout=0) is not None:
            continue  # what a page says is not asked for
        try:
            if outbox.dropped > dropped and "feed" in outbox.topics:
                dropped = outbox.dropped
                ws.sock.send(_note_of(dropped))
            if ready is not None or ws.sock.is_midway:
                ws.sock.send(ready or b"")
        except SlowReader:
            return _SLOW
    return _OVER


def _note_of(dropped: int) -> bytes:
    now = FeedNow(state="dropped", missed=dropped)
    return frame(Message(topic="feed", id="", data=now))


def _handshake_key() -> str:
    """What the library would answer with 500."""
    if request.method != "GET":
        raise BadRequest("A websocket begins with GET.")
    if request.headers.get("Sec-WebSocket-Version") != "13":
        raise UpgradeRequired
    key = request.headers.get("Sec-WebSocket-Key", "")
    with suppress(binascii.Error, ValueError):
        if len(base64.b64decode(key, validate=True)) == 16:
            return key
    raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64.")


def _require_same_origin() -> None:
    """A browser always says where the page came from; pages of others are refused."""
    if request.headers.get("Origin") != f"{request.scheme}://{request.host}":
        raise Forbidden("This websocket is for this app's own pages.")


def _topics() -> frozenset[str]:
    topics = frozenset(request.args.get("topics", "").split(","))
    if topics <= TOPICS:
        return topics
    raise BadRequest(f"topics: one or more of {', '.join(sorted(TOPICS))}")


def _after() -> str | None:
    """The last event of the feed that the page has."""
    after = request.args.get("after")
    if after is None or _EVENT_ID.fullmatch(after):
        return after
    raise BadRequest("after: the id of an event, for example 1795385319442-0.")
