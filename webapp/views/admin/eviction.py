"""Eviction settings of the cache server: as they are, and two that may change."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, make_response, request
from redis.exceptions import RedisError

from webapp.admin import audit, eviction
from webapp.admin.eviction import Change, Refused, State
from webapp.http import admin_access, delivery
from webapp.http.errors import Problem
from webapp.views.admin import parts

bp = Blueprint("eviction", __name__, url_prefix="/eviction")


@bp.get("")
def show() -> str:
    """Settings, what happens by the second, and what each policy would do."""
    parts.name_on_the_tape("Read eviction settings")
    return delivery.page("admin/eviction.html", **_context())


@bp.post("/preview")
def preview() -> Response:
    """What a change would do, before it is made."""
    now = _read()
    return _confirm(_propose(now))


@bp.post("")
def change() -> Response:
    """The change, if its value was typed and nobody changed it meanwhile."""
    now = _read()
    proposed = _propose(now)
    if request.form.get("before") != proposed.before:
        raise Problem(
            409, "Changed meanwhile", f"{proposed.name} is {proposed.before} now."
        )
    if request.form.get("typed", "").strip() != proposed.typed:
        return _confirm(proposed, error=f"Type {proposed.typed}.", status=422)
    parts.name_on_the_tape(f"Set {proposed.name} to {proposed.after}")
    audit.note(
        parts.clients().durable,
        parts.settings().namespace,
        who=admin_access.who(),
        action=f"set {proposed.name}",
        target="cache server",
        before=proposed.before,
        after=proposed.after,
    )
    try:
        eviction.apply(parts.clients().cache, proposed)
    except Refused as error:
        raise Problem(409, "Refused", str(error)) from error
    delivery.verdict("ok", "set")
    context = _context() | {"changed": proposed}
    if delivery.is_htmx():
        return make_response(delivery.fragment("admin/_settings.html", **context))
    return make_response(delivery.page("admin/eviction.html", **context))


def _read() -> State:
    """Raises Problem 400, before Redis is asked, and 409."""
    if not eviction.allowed(request.form.get("name", "")):
        raise Problem(
            400, "Not allowed", f"{eviction.LIMIT} and {eviction.POLICY} can be set."
        )
    try:
        return eviction.read(parts.clients())
    except Refused as error:
        raise Problem(409, "Refused", str(error)) from error


def _propose(now: State) -> Change:
    try:
        return eviction.propose(
            now, request.form.get("name", ""), request.form.get("value", "").strip()
        )
    except Refused as error:
        status = 409 if now.locked else 422
        raise Problem(status, "Refused", str(error)) from error


def _confirm(proposed: Change, *, error: str = "", status: int = 200) -> Response:
    parts.name_on_the_tape(f"Preview: {proposed.command}")
    is_htmx = delivery.is_htmx()
    context: dict[str, Any] = {
        "change": proposed,
        "value": request.form.get("value", "").strip(),
        "error": error,
        "is_page": not is_htmx,
    }
    if is_htmx:
        html = delivery.fragment("admin/_change.html", **context)
    else:
        html = delivery.page("admin/change.html", **context)
    return make_response(html, status)


def _context() -> dict[str, Any]:
    now, reason = None, ""
    try:
        now = eviction.read(parts.clients())
    except Refused as error:
        reason = str(error)
    return {
        "state": now,
        "reason": reason,
        "plan": _plan(now) if now else [],
        "undo": _undo(now) if now else None,
        "limit_mb": now.limit_bytes // eviction.MB if now else 0,
        "cost": parts.cost(),
    }


def _plan(now: State) -> list[tuple[str, str, str]]:
    """Policy, what it would do to this keyspace, what it is best for."""
    return [
        (policy, eviction.outlook(now, policy), eviction.BEST_FOR.get(policy, ""))
        for policy in now.policies
    ]


def _undo(now: State) -> audit.Entry | None:
    """The last change of a setting, if it still holds; its `before` as a form value."""
    try:
        entries = audit.latest(parts.clients().durable, parts.settings().namespace)
    except RedisError:
        return None
    holds = {"set maxmemory": str(now.limit_bytes), "set maxmemory-policy": now.policy}
    for entry in entries:
        if entry.action in holds:
            if holds[entry.action] != entry.after:
                return None
            is_limit = entry.action == "set maxmemory"
            before = f"{entry.before}B" if is_limit else entry.before
            return replace(entry, before=before)
    return None
