"""Which workers there should be: one small file each, in the instance folder.

A web process writes these files, the launcher reads them and acts. So a page can have
a worker killed, and never names a process: the launcher knows its own children.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from webapp.shop.orders import ANALYTICS, BILLING, GROUPS

MOST = 8  # workers that bill
RESTORED_S = 60  # a worker that a page had killed comes back by itself
_FOLDER = "workers"
_DOWN = ".down"
_NAME = re.compile(r"[a-z]+-[1-9][0-9]?")
_TEAM = {"worker-1": BILLING, "worker-2": BILLING, "worker-3": BILLING} | {
    "tally-1": ANALYTICS
}


@dataclass(frozen=True)
class Wanted:
    name: str
    group: str
    down_ms: int | None = None  # since 1970: when it was killed, to stay so for now

    @property
    def number(self) -> int:
        return int(self.name.rpartition("-")[2])


class Fleet:
    def __init__(self, instance: Path) -> None:
        self._folder = instance / _FOLDER

    def prepare(self) -> None:
        """The team that every new instance begins with."""
        if self._folder.exists():
            return
        self._folder.mkdir(mode=0o700)
        for name, group in _TEAM.items():
            (self._folder / name).write_text(group)

    def wanted(self) -> list[Wanted]:
        """All of them, in the order of their numbers."""
        found = []
        for file in self._files():
            if _NAME.fullmatch(file.name) and (group := _read(file)) in GROUPS:
                found.append(Wanted(file.name, group, self._down_ms(file.name)))
        return sorted(found, key=lambda wanted: (wanted.group, wanted.number))

    def add(self) -> str | None:
        """One more that bills; its name, None where there are as many as may be."""
        for number in range(1, MOST + 1):
            file = self._folder / f"worker-{number}"
            if not file.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                file.write_text(BILLING)
                return file.name
        return None

    def remove(self) -> str | None:
        """One less that bills, the last one; its name, None where there is but one."""
        billing = [wanted for wanted in self.wanted() if wanted.group == BILLING]
        if len(billing) < 2:
            return None
        name = billing[-1].name
        self.restart(name)
        (self._folder / name).unlink(missing_ok=True)
        return name

    def kill(self, name: str) -> bool:
        """Have it killed, and not started again for a while; False: there is none."""
        if name not in {wanted.name for wanted in self.wanted()}:
            return False
        (self._folder / f"{name}{_DOWN}").touch()
        return True

    def restart(self, name: str) -> bool:
        """Have it started again; False: it was not killed."""
        if name not in {wanted.name for wanted in self.wanted() if wanted.down_ms}:
            return False
        (self._folder / f"{name}{_DOWN}").unlink(missing_ok=True)
        return True

    def _down_ms(self, name: str) -> int | None:
        try:
            killed = (self._folder / f"{name}{_DOWN}").stat().st_mtime
        except OSError:
            return None
        return round(killed * 1000) if time.time() - killed < RESTORED_S else None

    def _files(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):  # removed meanwhile, or not ours
        return ""
