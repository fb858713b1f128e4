"""Keeps the workers running that the fleet asks for; part of the launcher's loop."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from webapp import process
from webapp.workers.fleet import Fleet, Wanted


@dataclass
class _Child:
    running: process.Process
    kept: process.Kept
    killed: bool = False  # by us, because a page asked for it


class Supervisor:
    def __init__(self, fleet: Fleet, environ: Mapping[str, str]) -> None:
        self._fleet = fleet
        self._environ = environ
        self._children: dict[str, _Child] = {}
        self._leaving: list[process.Process] = []

    @property
    def processes(self) -> list[process.Process]:
        return [child.running for child in self._children.values()] + self._leaving

    def look_after(self) -> None:
        """Start, start again, kill or dismiss whoever is due. Never waits.

        Only from the main thread: Linux ties a child's life to the thread.
        """
        wanted = {one.name: one for one in self._fleet.wanted()}
        for name in self._children.keys() - wanted.keys():
            self._dismiss(name)
        for one in wanted.values():
            self._see_to(one)
        self._leaving = [child for child in self._leaving if child.poll() is None]

    def _see_to(self, wanted: Wanted) -> None:
        child = self._children.get(wanted.name)
        if child is None:
            if wanted.down_ms is None:
                self._children[wanted.name] = self._new(wanted)
        elif wanted.down_ms is None:
            if child.killed:
                child.running, child.killed = self._start(wanted), False
            child.kept.look_after()
        elif not child.killed:
            process.kill(child.running)
            child.killed = True

    def _new(self, wanted: Wanted) -> _Child:
        def start() -> None:
            child.running = self._start(wanted)

        def trouble() -> str | None:
            ended = child.running.poll() is not None
            return "ended" if ended else None

        name = f"The worker {wanted.name}"
        child = _Child(self._start(wanted), process.Kept(name, start, trouble))
        return child

    def _start(self, wanted: Wanted) -> process.Process:
        command = [sys.executable, "-m", "webapp", "worker"]
        told = ["--name", wanted.name, "--group", wanted.group]
        return process.start([*command, *told], environ=self._environ)

    def _dismiss(self, name: str) -> None:
        """It was asked to end; what it leaves, others claim."""
        child = self._children.pop(name).running
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            self._leaving.append(child)
