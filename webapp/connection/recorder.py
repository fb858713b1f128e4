"""Sees every command of every client, because it sits in the connection class.

It writes into the Recording of the request that is running, and does next to
nothing when there is none. A round trip is one write to the server and the
replies to it; a pipeline is one trip with many commands.
"""

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ConnectionError, RedisError, TimeoutError

from webapp.connection import budget

_FRAMES = 20  # how far up the stack the sending line is looked for
_SHOWN = ("/webapp/patterns/", "/webapp/experiments/")


@dataclass(slots=True)
class InnerCall:
    """One `redis.call` that ran inside a script."""

    args: tuple[Any, ...]
    reply: Any


@dataclass(slots=True)
class Command:
    args: tuple[Any, ...]  # name and arguments, as given to the client
    reply: Any = None
    error: str | None = None
    source: tuple[str, int] | None = None  # file and line that sent it
    script: str | None = None  # the script's name, for EVALSHA and EVAL
    calls: list[InnerCall] | None = None  # what ran inside it, if that was watched


@dataclass(slots=True)
class Trip:
    node: str
    at_us: int  # after the start of the recording
    commands: list[Command]
    us: int = 0
    distance_us: int = 0  # of these, added by the network-distance fader
    sent: bool = True  # False: the server was not reached
    beside: bool = False  # sent with the trip before it, to another node


@dataclass(slots=True)
class Sql:
    text: str
    rows: int
    at_us: int
    us: int
    source: tuple[str, int] | None = None  # the line of a pattern that asked for it


@dataclass(slots=True)
class Recording:
    """What one cause made the app say to Redis and to the database."""

    cause: str
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    see_inside: bool = False
    distance_ms: int = 0
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    trips: list[Trip] = field(default_factory=list)
    sql: list[Sql] = field(default_factory=list)
    verdict: tuple[str, str] | None = None  # tone (ok, wait, no) and one or two words
    housekeeping: bool = False  # the page looking at itself, hidden by default
    _start: float = field(default_factory=time.perf_counter)

    def now_us(self) -> int:
        return round((time.perf_counter() - self._start) * 1e6)

    @property
    def failed(self) -> bool:
        """Whether a command got an error, or no answer."""
        return any(command.error for trip in self.trips for command in trip.commands)


_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


def current() -> Recording | None:
    return _current.get()


@contextmanager
def recording(into: Recording) -> Iterator[Recording]:
    """Record what this context does. Recordings nest; the inner one takes all."""
    token = _current.set(into)
    try:
        yield into
    finally:
        _current.reset(token)


@contextmanager
def unrecorded() -> Iterator[None]:
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def note_sql(text: str, *, rows: int, us: int) -> None:
    """Add a database query that has just ended."""
    if (sink := _current.get()) is not None:
        text = " ".join(text.split())
        sink.sql.append(Sql(text, rows, sink.now_us() - us, us, _sender()))


def note_unsent(node: str, args: Sequence[Any], error: RedisError) -> None:
    """Add a command that could not be sent, so that the tape can say why."""
    if (sink := _current.get()) is not None:
        command = Command(tuple(args), error=str(error), source=_sender())
        sink.trips.append(Trip(node, sink.now_us(), [command], sent=False))


def last_command() -> Command | None:
    """The command recorded last, for the one who knows what is inside it."""
    sink = _current.get()
    return sink.trips[-1].commands[-1] if sink and sink.trips else None


class RecordedConnection:
    """Mixed in before a redis-py connection class.

    `node` names the server on the tape. The HELLO of a new connection and the PING
    of a health check are recorded too: the server saw them.
    """

    node = "redis"
    beside = False  # the next trip goes with the one before it; it waits no more
    on_trip: Callable[[float], None] | None = None  # told the seconds of each trip
    _packed: Iterable[Sequence[Any]] | None = None
    _trip: Trip | None = None
    _open: int = 0  # replies still to come for the running trip
    _sent_at: float = 0.0
    _counts_from: float = 0.0  # the fader's wait before it is nobody's time
    _timed = True

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._packed = [args]
        super().send_command(*args, **kwargs)  # type: ignore[misc]

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> Any:
        commands = list(commands)
        self._packed = commands
        return super().pack_commands(commands)  # type: ignore[misc]

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        commands, self._packed = self._packed, None
        if not self._sock:  # type: ignore[attr-defined]
            self.connect_check_health(check_health=False)  # type: ignore[attr-defined]
        if check_health:
            self.check_health()  # type: ignore[attr-defined]
        self._begin(commands or ())
        try:
            super().send_packed_command(command, check_health=False)  # type: ignore[misc]
        except RedisError as error:
            self._fail(error)
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        spent = budget.current()
        if spent is not None and "timeout" not in kwargs:
            kwargs["timeout"] = spent.timeout(self.socket_timeout)  # type: ignore[attr-defined]
        try:
            reply = super().read_response(*args, **kwargs)  # type: ignore[misc]
        except (ConnectionError, TimeoutError) as error:
            self._fail(error)
            raise
        except RedisError as error:
            self._receive(error)
            raise
        self._receive(reply)
        return reply

    def _begin(self, commands: Iterable[Sequence[Any]]) -> None:
        spent = budget.current()
        if spent is not None:
            spent.require()
        self._trip, self._timed = None, False
        sink = _current.get()
        self._sent_at = self._counts_from = time.perf_counter()
        if sink is None:
            return
        at_us = sink.now_us()
        beside, self.beside = self.beside, False
        if sink.distance_ms and not beside:
            time.sleep(sink.distance_ms / 1000)
            self._counts_from = time.perf_counter()
        source = _sender()
        sent = [Command(tuple(c), source=source) for c in commands]
        distance_us = 0 if beside else sink.distance_ms * 1000
        self._trip = Trip(
            self.node, at_us, sent, distance_us=distance_us, beside=beside
        )
        self._open = 0
        sink.trips.append(self._trip)

    def _receive(self, reply: Any) -> None:
        elapsed = self._charge()
        if self.on_trip is not None and not self._timed:
            self._timed = True
            self.on_trip(elapsed / 1e6)
        trip = self._trip
        if trip is None or self._open >= len(trip.commands):
            return
        command = trip.commands[self._open]
        if isinstance(reply, Exception):
            command.error = str(reply)
        else:
            command.reply = reply
        self._open += 1
        trip.us = elapsed

    def _fail(self, error: RedisError) -> None:
        elapsed = self._charge()
        if (trip := self._trip) is not None:
            trip.us = elapsed
            for command in trip.commands[self._open :]:
                command.error = str(error)

    def _host_error(self) -> str:
        """What errors call the server: by name, for they are shown to visitors."""
        return self.node

    def _charge(self) -> int:
        """Take the time since the last reply off the budget; the trip's time in us."""
        now = time.perf_counter()
        if (spent := budget.current()) is not None:
            spent.charge(self._counts_from)
        return round((now - self._sent_at) * 1e6)


def _sender() -> tuple[str, int] | None:
    """The nearest line of a pattern or an experiment up the stack."""
    frame = sys._getframe(2)
    for _ in range(_FRAMES):
        name = frame.f_code.co_filename
        if any(part in name for part in _SHOWN):
            return name, frame.f_lineno
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None
