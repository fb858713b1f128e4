"""The throttled API: endpoints to load-test, and what the server says it did."""

from collections.abc import Sequence

from flask import Blueprint, Response, request

from webapp import keys
from webapp.admin import keyspace
from webapp.http import admin_access, delivery, ids, limiter
from webapp.http.errors import Problem
from webapp.http.limiter import Policy
from webapp.patterns.rate_limiter import tally
from webapp.patterns.rate_limiter.fixed_window import FixedWindow
from webapp.patterns.rate_limiter.sliding_window_log import SlidingWindowLog

bp = Blueprint("throttled", __name__, url_prefix="/api")

_ANY = "any"
_MOST_CLIENTS = 1000  # of one report

_POLICIES = {
    policy.name: policy
    for policy in (
        Policy("fixed-window", FixedWindow(), keys.FIXED_WINDOW),
        Policy("sliding-window-log", SlidingWindowLog(), keys.SLIDING_WINDOW_LOG),
    )
}


@bp.get("/throttled/<algorithm>")
def throttled(algorithm: str) -> Response:
    """100 requests in 60 s for each client; then 429, and when to ask again."""
    policy = _policy(algorithm)
    decision = limiter.enforce(policy, limiter.client_id())
    return delivery.json(
        {
            "algorithm": policy.name,
            "allowed": True,
            "remaining": decision.remaining,
            "reset_after_ms": decision.reset_after_ms,
        }
    )


@bp.get("/unthrottled")
def unthrottled() -> Response:
    """The same answer without a limiter: what a load test compares with."""
    response = delivery.json(
        {"algorithm": None, "allowed": True, "remaining": None, "reset_after_ms": None}
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/throttled/<algorithm>/report")
def report(algorithm: str) -> Response:
    """What the server admitted and rejected for one client; for admins, for all."""
    policy = _policy(algorithm)
    if "client" not in request.args and admin_access.is_admin():
        everyone = _told(policy, _all_clients(policy))
        everyone.vary.add("Cookie")
        return everyone
    return _told(policy, [_client()])


@bp.delete("/throttled/<algorithm>/report")
def reset(algorithm: str) -> Response:
    """The report of one client begins again at zero; its limit goes on."""
    policy, client_id = _policy(algorithm), _client()
    own = limiter.limiter()
    tally.reset(own.client, policy.tally_key(own.namespace, client_id))
    return _told(policy, [client_id])


def _told(policy: Policy, client_ids: Sequence[str]) -> Response:
    own = limiter.limiter()
    names = [policy.tally_key(own.namespace, client_id) for client_id in client_ids]
    counts = tally.read_all(own.client, names)
    response = delivery.json(
        {
            "algorithm": policy.name,
            "limit": policy.limit,
            "window_ms": policy.window_ms,
            "admitted": sum(count.admitted for count in counts),
            "rejected": sum(count.rejected for count in counts),
            "clients": [
                {"client": id, "admitted": count.admitted, "rejected": count.rejected}
                for id, count in zip(client_ids, counts, strict=True)
            ],
        }
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _all_clients(policy: Policy) -> list[str]:
    """Those with a report, in order. Raises Problem where they are too many to tell."""
    own = limiter.limiter()
    head, tail = policy.tally_key(own.namespace, _ANY).split(_ANY)
    found = {
        name.decode()[len(head) : -len(tail)]
        for page in keyspace.pages(own.client, f"{head}*{tail}")
        for name in page
    }
    if len(found) > _MOST_CLIENTS:
        raise Problem(
            400,
            "Too many clients",
            f"{len(found):,} have a report: name one, ?client=.",
        )
    return sorted(found)


def _policy(algorithm: str) -> Policy:
    try:
        return _POLICIES[algorithm]
    except KeyError:
        known = ", ".join(_POLICIES)
        raise Problem(404, "No such algorithm", f"There are {known}.") from None


def _client() -> str:
    if "client" not in request.args:
        raise Problem(400, "No client", "Name one client: ?client=its-api-key.")
    return ids.name(request.args["client"], what="client")
