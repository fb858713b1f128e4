"""What workers said to Redis, for the tape of who looks: a small file each.

Each worker overwrites its own file now and then; a web process reads what is new. So
the tape costs Redis nothing, and a worker never waits for who looks at it.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from webapp.connection.recorder import Recording, Trip

_FOLDER, _SUFFIX = "workers", ".tape"
_EVERY_S = 0.25  # an ordinary one is written at most
_NEWS_S = 10  # what is older is not shown
_KEPT = 4  # receipts of a worker that wait to be read
_ORDINARY_EVERY_S = 2.0  # of those that say nothing special, as many are shown


class Told(msgspec.Struct, frozen=True):
    id: str
    cause: str
    verdict: tuple[str, str]
    started_at: datetime
    us: int
    trips: list[Trip]


class Pen:
    """Writes one worker's receipts."""

    def __init__(self, instance: Path, name: str) -> None:
        self._file = instance / _FOLDER / f"{name}{_SUFFIX}"
        self._waiting: list[Told] = []
        self._written_at = 0.0

    def note(self, own: Recording) -> None:
        """Write it, or keep it for the next one if nothing is special about it."""
        self._waiting = [*self._waiting, _told(own)][-_KEPT:]
        now, is_special = time.monotonic(), self._waiting[-1].verdict[0] != "ok"
        if not is_special and now - self._written_at < _EVERY_S:
            return
        if not self._file.parent.is_dir():
            return
        self._written_at = now
        draft = self._file.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(self._waiting))
        draft.replace(self._file)

    def close(self) -> None:
        self._file.unlink(missing_ok=True)


class Reader:
    """Finds what workers have written since it looked last. For one thread."""

    def __init__(self, instance: Path) -> None:
        self._folder = instance / _FOLDER
        self._seen: dict[Path, int] = {}  # when each file was written
        self._known: set[str] = set()
        self._shown_at = 0.0

    def new(self) -> list[Recording]:
        """The oldest first; of those that say nothing special, one now and then."""
        found = sorted(self._unread(), key=lambda told: told.started_at)
        special = [told for told in found if told.verdict[0] != "ok"]
        ordinary = [told for told in found if told.verdict[0] == "ok"]
        if ordinary and time.monotonic() - self._shown_at > _ORDINARY_EVERY_S:
            self._shown_at = time.monotonic()
            special.append(ordinary[-1])
        return [_recording(told) for told in special]

    def _unread(self) -> list[Told]:
        found, ids = [], set()
        for file in self._folder.glob(f"*{_SUFFIX}"):
            try:
                written = file.stat().st_mtime_ns
                if self._seen.get(file) == written:
                    continue
                told = msgspec.json.decode(file.read_bytes(), type=list[Told])
            except (OSError, msgspec.MsgspecError):  # removed, or not ours
                continue
            self._seen[file] = written
            found += [one for one in told if self._is_news(one)]
            ids |= {one.id for one in told}
        self._known = (self._known | ids) if len(self._known) < 1_000 else ids
        return found

    def _is_news(self, told: Told) -> bool:
        age = datetime.now(UTC) - told.started_at
        return told.id not in self._known and age.total_seconds() < _NEWS_S


def _told(own: Recording) -> Told:
    for trip in own.trips:
        for command in trip.commands:
            command.args = tuple(_plain(argument) for argument in command.args)
            command.reply = _plain(command.reply)
    verdict = own.verdict or ("ok", "")
    return Told(own.id, own.cause, verdict, own.started_at, own.now_us(), own.trips)


def _recording(told: Told) -> Recording:
    return Recording(
        told.cause,
        id=told.id,
        started_at=told.started_at,
        trips=told.trips,
        verdict=told.verdict,
        _start=time.perf_counter() - told.us / 1e6,
    )


def _plain(value: Any) -> Any:
    """As JSON can carry it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
