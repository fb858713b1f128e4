"""python -m webapp worker: one worker of the order pipeline, beside a running app."""

import logging
import os
import signal
import socket
from functools import partial

from webapp.connection.roles import close
from webapp.connection.urls import client_for
from webapp.settings import Settings, share_metrics
from webapp.shop import pace
from webapp.shop.orders import Orders
from webapp.workers.jobs import JOBS
from webapp.workers.receipts import Pen
from webapp.workers.worker import Worker


def run(settings: Settings, *, group: str, name: str | None) -> int:
    """Handle orders until SIGTERM or SIGINT; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    share_metrics(settings)
    from webapp.http.metrics import EVENTS  # finds the files of all processes now

    client = client_for(
        settings.redis_urls["durable"], role="durable", max_connections=2
    )
    name = name or f"{socket.gethostname()[:32]}-{os.getpid()}"
    pen = Pen(settings.instance_path, name)
    worker = Worker(
        Orders(client, settings.namespace),
        JOBS[group],
        name,
        pace=partial(pace.read, settings.instance_path)
        if settings.demo
        else lambda: pace.PLAIN,
        count=lambda event: EVENTS.labels("streams", f"{group}_{event}").inc(),
        note=pen.note,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    worker.run()
    pen.close()
    close(client)
    return 0
