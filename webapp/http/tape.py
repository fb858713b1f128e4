"""The command tape: from a recording to the receipt that the browser gets.

The receipt travels in the response it is about: inside the page, out of band in a
fragment, and for JSON as `{data, tape}`. Secrets are hidden and long arguments cut
here, so nothing raw leaves the process.
"""

import re
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from webapp import keys
from webapp.connection.recorder import Command, InnerCall, Recording, Sql, Trip
from webapp.live.vitals import VitalsNow
from webapp.scripts import SCRIPTS

_LONGEST = 64  # characters of an argument or a short reply
_LONGEST_CLI = 4096
_MOST_ROWS = 200  # of a receipt: its first and its last commands
_SECRET_COMMANDS = {"AUTH", "HELLO", "ACL"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:{}*?@,=+/-]+")
_KEY = re.compile(r"[a-z0-9_-]+:[a-z0-9_-]+:[a-z0-9_-]+:\{[^{}]+\}(:.+)?", re.I)


class Argument(msgspec.Struct):
    text: str
    kind: Literal["key", "plain", "value"]


class ScriptCall(msgspec.Struct):
    name: str
    args: list[Argument]
    reply: str


class Script(msgspec.Struct):
    name: str
    calls: list[ScriptCall]


class TapeCommand(msgspec.Struct):
    n: int  # row number on the receipt, from 1
    name: str
    args: list[Argument]
    reply: str | None
    error: str | None
    us: int | None  # None: same trip as the row above
    source: str | None  # "cache_aside.py:117", "experiments/cache_aside.py:92"
    script: Script | None


class TapeTrip(msgspec.Struct):
    node: str
    at_us: int
    us: int
    distance_us: int
    sent: bool
    commands: list[TapeCommand]


class TapeSql(msgspec.Struct):
    text: str
    rows: int
    us: int
    at_us: int
    source: str | None


class Verdict(msgspec.Struct):
    tone: Literal["ok", "wait", "no", ""]
    text: str


class Receipt(msgspec.Struct):
    id: str
    cause: str
    page: str
    started_at: datetime
    commands: int
    round_trips: int
    redis_us: int
    database_us: int
    duration_us: int
    housekeeping: bool
    trips: list[TapeTrip]
    sql: list[TapeSql]
    verdict: Verdict | None = None
    cli: str = ""  # lines to paste into redis-cli

    @property
    def rows(self) -> list[tuple[str, Any]]:
        """Trips and queries in the order they began."""
        rows = [("trip", t) for t in self.trips] + [("sql", q) for q in self.sql]
        return sorted(rows, key=lambda row: row[1].at_us)

    @property
    def rows_count(self) -> int:
        """How many of its commands are on the receipt."""
        return sum(len(trip.commands) for trip in self.trips)

    @property
    def scripts(self) -> list[str]:
        """The names of the scripts that ran, each once."""
        commands = (c for t in self.trips for c in t.commands)
        return list(dict.fromkeys(c.script.name for c in commands if c.script))

    @property
    def clock(self) -> str:
        return self.started_at.strftime("%H:%M:%S.%f")[:-3]


def receipt(recording: Recording, *, page: str, namespace: str) -> Receipt:
    """What the tape shows of a recording that has ended."""
    sent = [command for trip in recording.trips for command in trip.commands]
    shown = _shown(len(sent))
    trips, n = [], 0
    for trip in recording.trips:
        trips.append(_trip(trip, namespace, first=n + 1, shown=shown))
        n += len(trip.commands)
    verdict = recording.verdict
    return Receipt(
        id=recording.id,
        cause=recording.cause,
        page=page,
        started_at=recording.started_at,
        commands=n,
        round_trips=sum(trip.sent and not trip.beside for trip in recording.trips),
        redis_us=_redis_us(recording.trips),
        database_us=sum(query.us for query in recording.sql),
        duration_us=recording.now_us(),
        housekeeping=recording.housekeeping,
        trips=[trip for trip in trips if trip.commands],
        sql=[_sql(query) for query in recording.sql],
        verdict=Verdict(*verdict) if verdict else None,  # type: ignore[arg-type]
        cli="\n".join(
            _cli(command, namespace)
            for n, command in enumerate(sent, start=1)
            if n in shown
        ),
    )


def _redis_us(trips: Sequence[Trip]) -> int:
    """The time of all trips; of those sent together, to several nodes, the longest."""
    longest: list[int] = []
    for trip in trips:
        if trip.beside and longest:
            longest[-1] = max(longest[-1], trip.us)
        else:
            longest.append(trip.us)
    return sum(longest)


def _shown(count: int) -> Container[int]:
    """The numbers of the rows that a receipt of so many commands shows."""
    if count <= _MOST_ROWS:
        return range(1, count + 1)
    half = _MOST_ROWS // 2
    return {*range(1, half + 1), *range(count - half + 1, count + 1)}


def of_vitals(now: VitalsNow) -> Receipt | None:
    """What the status bar costs each second, whoever looks; None: nothing yet."""
    if not now.housekeeping:
        return None
    trips = [
        TapeTrip(
            spent.node,
            at_us=0,
            us=spent.us,
            distance_us=0,
            sent=True,
            commands=[
                TapeCommand(
                    n=n,
                    name=spent.name,
                    args=[_argument(a, hidden=False) for a in spent.args],
                    reply=spent.reply,
                    error=spent.error,
                    us=spent.us,
                    source=None,
                    script=None,
                )
            ],
        )
        for n, spent in enumerate(now.housekeeping, start=1)
    ]
    total_us = sum(trip.us for trip in trips)
    return Receipt(
        id="vitals",
        cause="Vitals, once a second for everyone",
        page="",
        started_at=now.at,
        commands=len(trips),
        round_trips=len(trips),
        redis_us=total_us,
        database_us=0,
        duration_us=total_us,
        housekeeping=True,
        trips=trips,
        sql=[],
        cli="\n".join(" ".join((s.name, *s.args)) for s in now.housekeeping),
    )


def _trip(trip: Trip, namespace: str, *, first: int, shown: Container[int]) -> TapeTrip:
    commands = [
        _command(command, namespace, n=first + i, us=None if i else trip.us)
        for i, command in enumerate(trip.commands)
        if first + i in shown
    ]
    return TapeTrip(
        trip.node, trip.at_us, trip.us, trip.distance_us, trip.sent, commands
    )


def _command(
    command: Command, namespace: str, *, n: int, us: int | None
) -> TapeCommand:
    name, args = _name(command.args), command.args[1:]
    hidden = _is_secret(command.args, namespace)
    script = SCRIPTS.get(_text(args[0])) if name == "EVALSHA" and args else None
    if name in ("EVAL", "EVALSHA") and args:
        shown = [Argument(_short_script(name, args[0]), "plain")]
        shown += [_argument(a, hidden=False) for a in args[1:2]]  # how many keys
        shown += [_argument(a, hidden=hidden) for a in args[2:]]
    else:
        shown = [_argument(a, hidden=hidden) for a in args]
    inside = script or (_script_of(args[0]) if name == "EVAL" and args else None)
    return TapeCommand(
        n=n,
        name=name,
        args=shown,
        reply=None if command.error else _reply_of(name, command.reply, hidden=hidden),
        error=command.error and _clean(command.error),
        us=us,
        source=_source(command.source),
        script=Script(
            inside.name,
            [_call(call, hidden=hidden) for call in command.calls or []],
        )
        if inside
        else None,
    )


def _call(call: InnerCall, *, hidden: bool) -> ScriptCall:
    return ScriptCall(
        name=_name(call.args),
        args=[_argument(a, hidden=hidden) for a in call.args[1:]],
        reply=_reply(call.reply, hidden=hidden),
    )


def _sql(query: Sql) -> TapeSql:
    source = _source(query.source)
    return TapeSql(_clean(query.text), query.rows, query.us, query.at_us, source)


def _script_of(text: Any) -> Any:
    return next(
        (s for s in SCRIPTS.values() if _text(text) in (s.text, s.watched)), None
    )


def _short_script(name: str, arg: Any) -> str:
    return f"{_text(arg)[:6]}…" if name == "EVALSHA" else "<script>"


def _argument(arg: Any, *, hidden: bool) -> Argument:
    text = _text(arg)
    if _KEY.fullmatch(text):
        return Argument(_clean_key(text), "key")
    size = len(arg) if isinstance(arg, bytes) else len(text.encode())
    if hidden:
        return Argument(f"hidden {size} B", "value")
    if kind := _chip(text, size):
        return Argument(kind, "value")
    return Argument(_clean(text), "plain")


def _chip(text: str, size: int) -> str | None:
    """A short name for a long value; None if it can stand as it is."""
    if text[:1] in ("{", "[") and text[-1:] in ("}", "]"):
        return f"json {size} B"
    return f"text {size} B" if len(text) > _LONGEST else None


def _reply_of(name: str, reply: Any, *, hidden: bool) -> str:
    """SCAN answers with names, of secret keys too, so they are only counted."""
    if name == "SCAN" and isinstance(reply, list | tuple):
        return f'["{_text(reply[0])}", {len(reply[1]):,} keys]'
    return _reply(reply, hidden=hidden)


def _reply(reply: Any, *, hidden: bool) -> str:
    if reply is None:
        return "(nil)"
    if isinstance(reply, bool | int):
        return f"(integer) {int(reply)}"
    if isinstance(reply, list | tuple):
        shown = ", ".join(_reply(r, hidden=hidden) for r in reply[:8])
        return f"[{shown}{', …' if len(reply) > 8 else ''}]"
    text = _text(reply)
    if text in ("OK", "QUEUED", "PONG"):
        return text
    size = len(reply) if isinstance(reply, bytes) else len(text.encode())
    if hidden:
        return f"hidden {size} B"
    return _chip(text, size) or f'"{_clean(text)}"'


def _is_secret(args: tuple[Any, ...], namespace: str) -> bool:
    if _name(args) in _SECRET_COMMANDS:
        return True
    families = (keys.family_of(namespace, _text(arg)) for arg in args[1:])
    return any(family.secret for family in families if family)


def _cli(command: Command, namespace: str) -> str:
    """One line to paste into redis-cli; hidden values stay hidden."""
    hidden = _is_secret(command.args, namespace)
    words = [_name(command.args)]
    is_open = 2 if words == ["EVALSHA"] else 0  # the script, and how many keys
    for i, arg in enumerate(command.args[1:]):
        text = _text(arg)
        if _KEY.fullmatch(text) and (short := _clean_key(text)) != text:
            words.append(short)
        elif hidden and i >= is_open and not _KEY.fullmatch(text):
            words.append("<hidden>")
        elif _PLAIN.fullmatch(text):
            words.append(text)
        else:
            words.append(_quoted(text[:_LONGEST_CLI]))
    return " ".join(words)


def _quoted(text: str) -> str:
    """As redis-cli reads it: what cannot be printed is given byte by byte."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = (
        c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode())
        for c in plain
    )
    return '"' + "".join(shown) + '"'


def _name(args: tuple[Any, ...]) -> str:
    return _text(args[0]).upper() if args else ""


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _clean(text: str) -> str:
    """Control characters and line separators as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _clean_key(text: str) -> str:
    return _clean(keys.shown(text))


def _source(place: tuple[str, int] | None) -> str | None:
    """A pattern's file by its name; an experiment's may be named the same."""
    if place is None:
        return None
    folder, _, name = place[0].rpartition("/")
    within = "experiments/" if folder.endswith("/experiments") else ""
    return f"{within}{name}:{place[1]}"
