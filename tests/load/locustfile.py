"""Load on the throttled endpoints, and at the end the server's own count beside ours.

locust -f tests/load/locustfile.py --headless -u 300 -r 100 -t 30s --host http://127.0.0.1:8000

All users are one client, `load`; choose endpoints with `--tags fixed log none`. A 429
is an answer here and no failure. Requests under way when the time is over are known to
the server only.
"""

from collections import Counter
from typing import Any

import requests
from locust import FastHttpUser, constant, events, tag, task

CLIENT = "load"
ALGORITHMS = ("fixed-window", "sliding-window-log")

seen: Counter[tuple[str, int]] = Counter()


class Caller(FastHttpUser):
    wait_time = constant(0)
    default_headers = {"X-API-Key": CLIENT}  # noqa: RUF012 - locust's own way

    @tag("fixed")
    @task
    def fixed_window(self) -> None:
        self.ask(f"/api/throttled/{ALGORITHMS[0]}")

    @tag("log")
    @task
    def sliding_window_log(self) -> None:
        self.ask(f"/api/throttled/{ALGORITHMS[1]}")

    @tag("none")
    @task
    def unthrottled(self) -> None:
        self.ask("/api/unthrottled")

    def ask(self, path: str) -> None:
        with self.client.get(path, catch_response=True) as answer:
            seen[path, answer.status_code] += 1
            if answer.status_code in (200, 429):
                answer.success()


def _report(host: str, algorithm: str, method: str) -> Any:
    url = f"{host}/api/throttled/{algorithm}/report"
    return requests.request(method, url, params={"client": CLIENT}, timeout=10).json()


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    seen.clear()
    for algorithm in ALGORITHMS:
        _report(environment.host, algorithm, "DELETE")


@events.test_stop.add_listener
def compare(environment: Any, **_: Any) -> None:
    for algorithm in ALGORITHMS:
        path, said = (
            f"/api/throttled/{algorithm}",
            _report(environment.host, algorithm, "GET"),
        )
        ours = f"{seen[path, 200]} admitted, {seen[path, 429]} rejected"
        theirs = f"{said['admitted']} admitted, {said['rejected']} rejected"
        print(f"{algorithm}: here {ours}; the server {theirs}")
