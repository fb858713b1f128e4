"""Limits on requests: who is asking, one decision, and the headers that tell it.

A view calls `enforce`, and goes on if nothing is raised. Without Redis each process
limits on its own, with its share of the limit, and the answer says so.
"""

import ipaddress
import logging
import threading
import time
from dataclasses import dataclass, field

import redis
from flask import Flask, Response, current_app, g, request
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection import budget
from webapp.connection.budget import BudgetSpent
from webapp.http import metrics
from webapp.http.errors import Problem
from webapp.http.ids import name
from webapp.patterns.rate_limiter import Decision
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_SECOND_CHANCE_S = 0.5
_ADDRESS = "ip-"  # how a client begins that is known by its address only
_MOST_CLIENTS = 10_000  # that a process remembers; the others share one window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """A limit with a name, as the headers tell it."""

    name: str  # "fixed-window"
    algorithm: FixedWindow | SlidingWindowLog
    family: keys.Family  # of its windows or logs

    @property
    def limit(self) -> int:
        return self.algorithm.limit

    @property
    def window_ms(self) -> int:
        return self.algorithm.window_ms

    def key(self, namespace: str, client_id: str) -> str:
        return keys.key(namespace, self.family, client_id)

    def tally_key(self, namespace: str, client_id: str) -> str:
        return keys.key(namespace, keys.TALLY, client_id, self.name)


class QuotaExceeded(Problem):
    def __init__(self, policy: Policy, decision: Decision) -> None:
        super().__init__(
            429,
            "Quota exceeded",
            f"{decision.limit:,} requests in {policy.window_ms // 1000} s are allowed.",
            retry_after_s=_seconds(decision.retry_after_ms),
            type=QUOTA_EXCEEDED,
            members={
                "violated-policies": [policy.name],
                "retry_after_ms": decision.retry_after_ms,
            },
        )


@dataclass
class Fallback:
    """A fixed window a client in this process only, for when Redis is away."""

    workers: int  # processes that share the limit
    _windows: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, policy: Policy, client_id: str) -> Decision:
        limit = max(1, policy.limit // self.workers)
        now = time.monotonic()
        with self._lock:
            who = self._room_for((policy.name, client_id), now)
            ends, asked = self._windows.get(who, (0.0, 0))
            if ends <= now:
                ends, asked = now + policy.window_ms / 1000, 0
            asked = min(asked + 1, limit + 1)
            self._windows[who] = ends, asked
        left_ms = int((ends - now) * 1000) + 1
        allowed = asked <= limit
        return Decision(
            allowed, limit, max(limit - asked, 0), 0 if allowed else left_ms, left_ms
        )

    def _room_for(self, who: tuple[str, str], now: float) -> tuple[str, str]:
        """Itself, or the window that all share for whom there is no room."""
        if who in self._windows or len(self._windows) < _MOST_CLIENTS:
            return who
        self._windows = {w: kept for w, kept in self._windows.items() if kept[0] > now}
        return who if len(self._windows) < _MOST_CLIENTS else (who[0], "")


@dataclass
class Limiter:
    client: redis.Redis
    namespace: str
    fallback: Fallback
    degraded: bool = False  # since the last decision

    def decide(self, policy: Policy, client_id: str) -> tuple[Decision, bool]:
        """The decision, and whether it is this process's own, without Redis."""
        try:
            decision = self._ask(policy, client_id)
        except RedisError as error:
            if not self.degraded:
                log.warning("limits are counted in each process: %s", error)
            self.degraded = True
            return self.fallback.decide(policy, client_id), True
        self.degraded = False
        return decision, False

    def _ask(self, policy: Policy, client_id: str) -> Decision:
        try:
            return self._ask_once(policy, client_id)
        except BudgetSpent:
            # This process was slow, not Redis, and nothing was sent: an answer of its
            # own would admit more than the limit.
            with budget.limited_to(_SECOND_CHANCE_S):
                return self._ask_once(policy, client_id)

    def _ask_once(self, policy: Policy, client_id: str) -> Decision:
        return policy.algorithm.decide(
            self.client,
            policy.key(self.namespace, client_id),
            tally_key=policy.tally_key(self.namespace, client_id),
        )


def init_app(app: Flask, client: redis.Redis, *, namespace: str, workers: int) -> None:
    app.extensions["limiter"] = Limiter(client, namespace, Fallback(workers))
    app.after_request(_add_headers)


def limiter() -> Limiter:
    """This app's limiter."""
    found: Limiter = current_app.extensions["limiter"]
    return found


def enforce(policy: Policy, client_id: str) -> Decision:
    """Let the request pass, or raise QuotaExceeded; the answer gets its headers."""
    decision, degraded = limiter().decide(policy, client_id)
    g.limit_headers = headers(policy, decision, degraded=degraded)
    event = "admitted" if decision.allowed else "rejected"
    metrics.EVENTS.labels("rate_limits", event).inc()
    if not decision.allowed:
        raise QuotaExceeded(policy, decision)
    return decision


def client_id() -> str:
    """Who is asking: the name in X-API-Key, else the address. Raises Problem 400.

    An address is the one that ProxyFix believes; of IPv6 it is the first 64 bits, as
    a household has all the others.
    """
    given = request.headers.get("X-API-Key")
    if given is None:
        return address_id(request.remote_addr)
    if given.startswith(_ADDRESS):
        raise Problem(400, "Not a name", f"X-API-Key: {_ADDRESS} is for addresses.")
    return name(given, what="X-API-Key")


def address_id(address: str | None) -> str:
    """127.0.0.1 -> "ip-127-0-0-1", 2001:db8::7 -> "ip-20010db800000000"."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return f"{_ADDRESS}unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return f"{_ADDRESS}{int(ip) >> 64:016x}"
        ip = ip.ipv4_mapped
    return _ADDRESS + str(ip).replace(".", "-")


def headers(policy: Policy, decision: Decision, *, degraded: bool) -> dict[str, str]:
    """RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-10."""
    reset_ms = max(decision.reset_after_ms, decision.retry_after_ms)
    window_s = _seconds(policy.window_ms)
    told = {
        "RateLimit-Policy": f'"{policy.name}";q={decision.limit};w={window_s}',
        "RateLimit": f'"{policy.name}";r={decision.remaining};t={_seconds(reset_ms)}',
        "Cache-Control": "no-store",
    }
    return told | ({"X-RateLimit-Mode": "degraded"} if degraded else {})


def _add_headers(response: Response) -> Response:
    response.headers.update(g.get("limit_headers", {}))
    return response


def _seconds(ms: int) -> int:
    """Rounded up, and never zero: who asks again at once is refused again."""
    return max(1, -(-ms // 1000))
