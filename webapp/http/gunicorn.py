"""How gunicorn serves the app: its settings, and the hooks that end it in time."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from prometheus_client.multiprocess import mark_process_dead

import webapp
from webapp import process
from webapp.http import pools
from webapp.settings import from_environ

_settings = from_environ()
_shared_memory = Path("/dev/shm")  # noqa: S108 - a heartbeat file without disk
_host = f"[{_settings.host}]" if ":" in _settings.host else _settings.host

bind = f"{_host}:{_settings.port}"
worker_class = "gthread"  # a websocket needs whole sends: others lose parts of frames
workers = _settings.workers
threads = _settings.threads
timeout = 30
graceful_timeout = 3  # s, for requests: pages that are open are told to leave at once
keepalive = 5
limit_request_line = 4094
limit_request_fields = 50
forwarded_allow_ips = ""  # the app itself believes as many proxies as it was told
control_socket_disable = True
worker_tmp_dir = str(_shared_memory) if _shared_memory.is_dir() else None
loglevel = "warning"


def make_app() -> Flask:
    return webapp.create_app(_settings)


def post_fork(arbiter: Any, worker: Any) -> None:
    process.die_with(arbiter.pid)


def post_worker_init(worker: Any) -> None:
    """Have websockets closed with 1001 as soon as the worker is told to end."""
    extensions = getattr(worker.wsgi, "extensions", {})
    hub = extensions.get("hub")
    if hub is None:
        return
    if clients := extensions.get("clients"):
        pools.watch(clients)

    def end(number: int, frame: FrameType | None) -> None:
        hub.close()
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, end)


def child_exit(arbiter: Any, worker: Any) -> None:
    folder = _settings.instance_path / "metrics"
    mark_process_dead(worker.pid, str(folder))  # type: ignore[no-untyped-call]
