"""What an experiment is: controls, a bench to run on, and an outcome to show.

It runs a broken variant beside the right one, with real commands. Its scratch keys
are gone when it ends, however it ends.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, TypeVar

import redis
from sqlalchemy import Engine

from webapp import keys
from webapp.connection import recorder
from webapp.connection.budget import limited_to
from webapp.connection.recorder import Command, Recording
from webapp.scripts import SCRIPTS, LuaScript

T = TypeVar("T")
Tone = Literal["ok", "wait", "no"]

_WHOLE_NUMBER = re.compile(r"[0-9]{1,6}")
_CLEANUP_S = 0.25
# What connections say for themselves, some of it secret.
_OF_CONNECTIONS = {"AUTH", "ASKING", "CLIENT", "CLUSTER", "HELLO", "PING", "ROLE"}
_OF_CONNECTIONS |= {"SELECT"}
_SPACE = "\u00a0"  # keeps a number and its unit on one line


class BadControl(ValueError):
    """A control's value that is out of its bounds; the text is for people."""


@dataclass(frozen=True)
class Control:
    name: str
    label: str
    kind: Literal["range", "switch"]  # a switch is 0 or 1
    min: int
    max: int
    step: int
    value: int  # where it stands at first
    unit: str = ""

    def parse(self, text: str) -> int:
        """Raises BadControl for anything but a value that the control can show."""
        allowed = range(self.min, self.max + 1, self.step)
        if _WHOLE_NUMBER.fullmatch(text) and int(text) in allowed:
            return int(text)
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        raise BadControl(
            f"{self.label}: a whole number from {self.min} to {self.max}{steps}."
        )


@dataclass(frozen=True)
class Bench:
    """What an experiment may use."""

    client: redis.Redis
    engine: Engine
    namespace: str
    product_id: int  # a real product, only ever read
    lab: keys.Family = keys.LAB  # the family of the page's scratch keys
    redis_url: str = ""  # of the client's server, for processes of an experiment
    recordings: list[Recording] = field(default_factory=list)  # of the run so far


@dataclass(frozen=True)
class Row:
    """One measured line of a result."""

    label: str
    value: str
    tone: Tone
    share: float | None = None  # length of its bar, 0.0 to 1.0; None: no bar


@dataclass(frozen=True)
class Step:
    n: int  # from 1
    actor: str
    text: str  # what the actor does: "stores what it read"
    command: str  # what really ran, "GET rpl:catalog:lab:{stale-3f09ab}:copy"
    reply: str
    tone: Tone
    recording: Recording


@dataclass(frozen=True)
class Lane:
    """One schedule of a replay, step after step."""

    title: str
    tone: Tone  # of how it ended
    steps: list[Step]


@dataclass(frozen=True)
class Outcome:
    rows: list[Row]
    summary: str  # one sentence
    tone: Tone  # no: the flaw was seen in this run
    verdict: str  # the same in one or two words
    recordings: list[Recording]
    lanes: list[Lane] = field(default_factory=list)


@dataclass(frozen=True)
class Experiment:
    name: str  # "stale-set", a part of its URL
    title: str
    hypothesis: str
    controls: tuple[Control, ...]
    run: Callable[..., Outcome]  # (bench, *, one int a control)
    replayed: bool = False  # step by step: its outcome has lanes

    def parse(self, form: Mapping[str, str]) -> dict[str, int]:
        """The controls' values from a form, which leaves out a switch that is off.

        Raises BadControl.
        """
        return {
            control.name: control.parse(
                form.get(
                    control.name,
                    "0" if control.kind == "switch" else str(control.value),
                )
            )
            for control in self.controls
        }


class Run:
    """One run of an experiment: its own keys, and what it recorded."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.id = f"{name}-{secrets.token_hex(3)}"
        self.keys: list[str] = []
        self.recordings = bench.recordings
        self._namespace, self._lab = bench.namespace, bench.lab

    def key(self, name: str, family: keys.Family | None = None) -> str:
        """A scratch key, which is deleted when the run ends."""
        key = keys.key(self._namespace, family or self._lab, self.id, name)
        self.keys.append(key)
        return key

    @contextmanager
    def recording(self, cause: str) -> Iterator[Recording]:
        """Record what follows as a receipt of its own, seen as the request is."""
        own = Recording(cause)
        if (outer := recorder.current()) is not None:
            own.see_inside, own.distance_ms = outer.see_inside, outer.distance_ms
        self.recordings.append(own)
        try:
            with recorder.recording(own):
                yield own
        except redis.RedisError:
            own.verdict = "no", "failed"
            raise


class Replay:
    """A fixed schedule, run step after step, each a receipt of its own."""

    def __init__(self, run: Run) -> None:
        self.steps: list[Step] = []
        self._run = run

    def step(
        self,
        actor: str,
        text: str,
        do: Callable[[], T],
        *,
        shown: Callable[[T], str] | None = None,
        tone: Callable[[T], Tone] = lambda _: "ok",
    ) -> T:
        """Run a step and answer what it answered.

        `shown` puts the answer into words, else it is the reply as it came.
        """
        with self._run.recording(f"{actor}: {text}") as own:
            answer = do()
        sent = _sent(own)
        if sent:
            own.cause = f"{actor}: {', '.join(verb for verb, _ in sent)}"
        reply = shown(answer) if shown else _reply(own)
        own.verdict = tone(answer), reply
        command = "; ".join(_counted(line for _, line in sent))
        n = len(self.steps) + 1
        self.steps.append(Step(n, actor, text, command, reply, tone(answer), own))
        return answer

    def lane(self, title: str) -> Lane:
        """What has run so far; the last step says how it ended."""
        return Lane(title, self.steps[-1].tone, self.steps)


def _sent(own: Recording) -> list[tuple[str, str]]:
    """Verb and line of every command and query, in the order they began."""
    lines = [
        (trip.at_us, _told(command))
        for trip in own.trips
        for command in trip.commands
        if command.args[0] not in _OF_CONNECTIONS
    ]
    lines += [(q.at_us, (q.text.split()[0], q.text)) for q in own.sql]
    return [told for _, told in sorted(lines, key=lambda line: line[0])]


def _counted(lines: Iterable[str]) -> Iterator[str]:
    """Each line once, with how often it came in a row."""
    for line, same in groupby(lines):
        times = len(list(same))
        yield f"{line} ({times} times)" if times > 1 else line


def _reply(own: Recording) -> str:
    """The last reply, or how many rows the last query was about."""
    if own.trips:
        return _text(own.trips[-1].commands[-1].reply)
    rows = own.sql[-1].rows
    return f"{rows} row{'' if rows == 1 else 's'}"


def _told(command: Command) -> tuple[str, str]:
    name, *args = map(_text, command.args)
    if name in ("EVALSHA", "EVAL") and (script := _script(args[0])):
        keys = args[2 : 2 + int(args[1])]
        return script.name.rpartition("/")[2], " ".join([name, script.name, *keys])
    return name, " ".join([name, *args])


def _script(sha_or_text: str) -> LuaScript | None:
    if found := SCRIPTS.get(sha_or_text):
        return found
    return next((s for s in SCRIPTS.values() if s.text == sha_or_text), None)


def _text(argument: Any) -> str:
    if isinstance(argument, bytes):
        return argument.decode(errors="replace")
    return str(argument)


@contextmanager
def running(bench: Bench, name: str) -> Iterator[Run]:
    """A run that leaves no key behind, also where the request's time is used up."""
    run = Run(bench, name)
    try:
        yield run
    finally:
        if run.keys:
            with limited_to(_CLEANUP_S):
                bench.client.unlink(*run.keys)


def compare(
    what: str,
    sides: tuple[str, str],
    measured: tuple[int, int],
    *,
    shown: Callable[[int], str] = "{:,}".format,
    most: int = 0,
) -> list[Row]:
    """A row for the broken side and one for the fixed, with bars on one scale.

    The bars fill at `most`, or at the larger of the two.
    """
    longest = max(*measured, most, 1)
    worse = measured[0] > measured[1], measured[1] > measured[0]
    return [
        Row(f"{what}, {side}", shown(n), "no" if is_worse else "ok", n / longest)
        for side, n, is_worse in zip(sides, measured, worse, strict=True)
    ]


def duration(us: int) -> str:
    """127 -> '127 µs', 128400 -> '128 ms', 1930000 -> '1.93 s', 0 -> '0 ms'."""
    if us == 0:
        return f"0{_SPACE}ms"
    if us < 1_000:
        return f"{us}{_SPACE}µs"
    number, unit = (us / 1e3, "ms") if us < 1_000_000 else (us / 1e6, "s")
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f}{_SPACE}{unit}"


def span(ms: int) -> str:
    """A time as prose tells it: 400 -> '400 ms', 4000 -> '4 s', 9892 -> '9.89 s'."""
    return f"{ms}{_SPACE}ms" if ms < 1_000 else f"{ms / 1_000:.3g}{_SPACE}s"


def percent(share: float) -> str:
    """0.436 -> '43.6 %'."""
    return f"{share * 100:.1f}{_SPACE}%"


def price(cents: int) -> str:
    """4850 -> '€ 48.50'."""
    return f"€{_SPACE}{cents // 100:,}.{cents % 100:02}"
