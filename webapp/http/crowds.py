"""Readers at once: what the form asks for, run, and drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from webapp import keys
from webapp.experiments import stampede_lab
from webapp.experiments.stampede_lab import READERS, TITLES, LabBusy, Name, Ran
from webapp.http import ids, lab, timelines
from webapp.http.errors import Problem
from webapp.http.timelines import Picture

_RETRY_AFTER_S = 3


@dataclass(frozen=True)
class Crowd:
    """What the form offers, and where it stands."""

    method: Name = "none"
    count: int = 50
    titles: Mapping[Name, str] = field(default_factory=lambda: TITLES)
    readers: range = READERS
    processes: int = stampede_lab.PROCESSES
    load_ms: int = stampede_lab.LOAD_MS
    left_ms: int = stampede_lab.LEFT_MS
    connections: int = stampede_lab.CONNECTIONS


@dataclass(frozen=True)
class Asked:
    crowd: Crowd
    runs: list[Ran]
    picture: Picture


def run(form: Mapping[str, str]) -> Asked:
    """Raises Problem 400, and 503 while the readers of another are under way."""
    crowd = Crowd(_method(form.get("method", "none")), _count(form))
    names = list(TITLES) if form.get("all") else [crowd.method]
    try:
        with lab.bench_for(keys.LAB, "Readers at once") as bench:
            runs = stampede_lab.run(bench, names, readers=crowd.count)
    except LabBusy as error:
        raise Problem(
            503,
            "Other readers are under way",
            "One crowd at a time. Try again in a moment.",
            retry_after_s=_RETRY_AFTER_S,
        ) from error
    lab.name_on_the_tape("Readers at once", replayed=True)
    return Asked(crowd, runs, timelines.picture(runs))


def _method(name: str) -> Name:
    if name not in TITLES:
        raise Problem(400, "No such method", f"method: one of {', '.join(TITLES)}.")
    return name


def _count(form: Mapping[str, str]) -> int:
    return ids.bounded(
        form.get("readers", "50"), what="readers", least=READERS[0], most=READERS[-1]
    )
