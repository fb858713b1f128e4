"""Child processes that never outlive the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_PR_SET_PDEATHSIG = 1
_EARLY_S = 10.0  # one that ends sooner has ended early
_ENDS_AT_ONCE = 3  # so many early ends in a row are answered at once
_LONGEST_WAIT_S = 30.0
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

Process = subprocess.Popen[bytes]


def start(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    stdout: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a child in its own session, so that Ctrl-C reaches only its parent.

    Linux ends a child when the thread that started it ends: call this from the main
    thread. `stdin` must fit into a pipe (64 KiB).
    """
    parent = os.getpid()
    child = subprocess.Popen(  # noqa: S603 - commands of our own
        command,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=stdout,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=lambda: die_with(parent),
    )
    if child.stdin:
        child.stdin.write(stdin)
        child.stdin.close()
    return child


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. Linux only."""
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def end(children: Iterable[Process], *, within_s: float) -> None:
    """Ask all to end; kill the sessions of those that have not in time."""
    running = [child for child in children if child.poll() is None]
    for child in running:
        child.terminate()
    deadline = time.monotonic() + within_s
    for child in running:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill(child)


def kill(child: Process) -> None:
    """Kill a child's whole session at once, and wait for the child."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@dataclass
class Kept:
    """A running child that is started again when it ends, later if it ends at once."""

    name: str
    start: Callable[[], None]  # raises RuntimeError or OSError if it cannot
    trouble: Callable[[], str | None]  # what is wrong with it; None: all is well
    _started: float = field(default_factory=lambda: time.monotonic())
    _due: float | None = None  # when to start it again; None while it runs
    _early_ends: int = 0

    def look_after(self) -> None:
        if self._due is None and (trouble := self.trouble()):
            self._plan(trouble)
        if self._due is None or time.monotonic() < self._due:
            return
        self._due, self._started = None, time.monotonic()
        try:
            self.start()
        except (RuntimeError, OSError) as error:
            self._plan(f"did not start: {error}")

    def _plan(self, trouble: str) -> None:
        now = time.monotonic()
        lived_s = now - self._started
        self._early_ends = self._early_ends + 1 if lived_s < _EARLY_S else 1
        exponent = self._early_ends - _ENDS_AT_ONCE
        wait_s = min(2.0**exponent, _LONGEST_WAIT_S) if exponent > 0 else 0.0
        self._due = now + wait_s
        when = f"Starting again in {wait_s:.0f} s." if wait_s else "Starting again."
        print(f"{self.name} {trouble}. {when}", flush=True)
