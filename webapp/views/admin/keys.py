"""Keys: found by SCAN, looked at, given a TTL, deleted."""

import re
from typing import Any

from flask import Blueprint, Response, make_response, request, url_for

from webapp import keys
from webapp.admin import audit, changes, names, scan, values
from webapp.admin.scan import Place, Query
from webapp.connection import budget
from webapp.connection.cluster import cursor_bound
from webapp.http import admin_access, delivery, ids
from webapp.http.errors import Problem
from webapp.http.jinja import plural
from webapp.rooms import PAGES
from webapp.views.admin import parts

bp = Blueprint("keys", __name__, url_prefix="/keys")

_ENOUGH = 50  # rows; until then a scan goes on by itself
_CURSOR = re.compile(r"0|[1-9][0-9]{0,999}")
_TITLES = {"delete": "Delete keys", "expire": "Set a TTL"}  # by action
_CHANGE_DEADLINE_S = 20.0
_MOST_NAMED = 500


@bp.get("")
def show() -> Response:
    """A page of keys that match, or the form alone: a scan needs a click."""
    where, query = parts.place(), _query()
    page, found = None, 0
    if query is not None:
        parts.name_on_the_tape(f"Scan {query.pattern or '*'}")
        if request.args.get("again"):
            delivery.housekeeping()
        page = scan.page(parts.client_of(where), where, query)
        found = _number("found") + len(page.rows)
    context = _context(where, query) | {
        "scan": page,
        "found": found,
        "next_url": _next_url(where, page, found),
        "goes_on": found < _ENOUGH,
        "cost": parts.cost(),
    }
    if not delivery.is_htmx():
        return make_response(delivery.page("admin/keys.html", **context))
    more = query is not None and query.cursor > 0
    part = "admin/_more.html" if more else "admin/_result.html"
    return make_response(delivery.fragment(part, **context))


@bp.get("/key")
def key() -> Response:
    """One key: its TTL, its contract, the beginning of its value."""
    where = parts.place()
    name = _name(request.args.get("key", ""))
    shown = names.shown(name, scan.family_of(where.namespace, name))
    parts.name_on_the_tape(f"Look at {shown}")
    if request.args.get("again"):
        delivery.housekeeping()
    look = values.look(parts.client_of(where), where, name)
    context = _context(where, None) | {
        "look": look,
        "name": shown,
        "link": names.written(name),
        "cost": parts.cost(),
    }
    if delivery.is_htmx():  # that a key has gone is what it asks
        return make_response(delivery.fragment("admin/_key.html", **context))
    html = delivery.page("admin/key.html", **context)
    return make_response(html, 200 if look else 404)


@bp.post("/<action>/preview")
def preview(action: str) -> Response:
    """What a change would meet, and the commands that it would run."""
    _require_known(action)
    where, wanted = parts.place(), _wanted()
    parts.name_on_the_tape(f"Preview: {_TITLES[action]}")
    with budget.limited_to(_CHANGE_DEADLINE_S):
        plan = changes.plan(parts.client_of(where), where, wanted)
    return _confirm(action, where, wanted, plan)


@bp.post("/<action>")
def change(action: str) -> Response:
    """The change, if its count was typed and no more keys are met than that."""
    _require_known(action)
    where, wanted = parts.place(), _wanted()
    client = parts.client_of(where)
    parts.name_on_the_tape(_TITLES[action])
    with budget.limited_to(_CHANGE_DEADLINE_S):
        plan = changes.plan(client, where, wanted)
        errors = _errors(action, plan)
        if errors:
            return _confirm(action, where, wanted, plan, errors=errors, status=422)
        ttl_ms = _number("ttl_s") * 1000
        _note(action, where, wanted, plan, ttl_ms)
        if action == "delete":
            count = changes.delete(client, plan.names)
        else:
            count = changes.set_ttl(client, plan.names, ttl_ms)
    delivery.verdict("ok", plural(count, "key"))
    context: dict[str, Any] = {"action": action, "count": count, "ttl_ms": ttl_ms}
    context["again"] = _again()
    if delivery.is_htmx():
        return make_response(delivery.fragment("admin/_done.html", **context))
    return make_response(delivery.page("admin/done.html", **context))


def _confirm(
    action: str,
    where: Place,
    wanted: changes.Wanted,
    plan: changes.Plan,
    *,
    errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    is_htmx = delivery.is_htmx()
    context: dict[str, Any] = {
        "action": action,
        "where": where,
        "wanted": wanted,
        "written": [names.written(name) for name in wanted.names],
        "plan": plan,
        "batch": changes.BATCH,
        "most": changes.MOST_KEYS,
        "errors": errors or {},
        "again": _again(),
        "is_page": not is_htmx,
        "cost": parts.cost(),
    }
    if is_htmx:
        html = delivery.fragment("admin/_confirm.html", **context)
    else:
        html = delivery.page("admin/confirm.html", **context)
    return make_response(html, status)


def _errors(action: str, plan: changes.Plan) -> dict[str, str]:
    """What is wrong with which field."""
    errors: dict[str, str] = {}
    typed, expected = _number("typed"), _number("expected")
    if typed != expected or not expected:
        errors["typed"] = f"Type {plan.count}."
    elif plan.count > expected:
        errors["typed"] = f"{plan.count:,} keys match now. {expected:,} were confirmed."
    if action == "expire" and not 0 < _number("ttl_s") * 1000 <= plan.limit_ms:
        errors["ttl_s"] = f"From 1 to {plan.limit_ms // 1000:,} seconds."
    return errors


def _note(
    action: str,
    where: Place,
    wanted: changes.Wanted,
    plan: changes.Plan,
    ttl_ms: int,
) -> None:
    if wanted.names:
        target = ", ".join(r.shown for r in plan.shown)
    else:
        target = f"{wanted.pattern or '*'} {wanted.type}".strip()
    audit.note(
        parts.clients().durable,
        where.namespace,
        who=admin_access.who(),
        action="delete" if action == "delete" else "set TTL",
        target=f"{plural(plan.count, 'key')} on {where.role}: {target}",
        after="" if action == "delete" else f"{ttl_ms // 1000} s",
    )


def _context(where: Place, query: Query | None) -> dict[str, Any]:
    families = [
        (page, [f for f in keys.FAMILIES if f.page == page])
        for page in dict.fromkeys(f.page for f in keys.FAMILIES)
    ]
    return {
        "where": where,
        "query": query or Query(f"{where.namespace}:*"),
        "types": scan.TYPES,
        "families": families,
        "owner_urls": _owner_urls(),
        "key_url": _key_url,
    }


def _owner_urls() -> dict[str, str]:
    """From the page part of a key to the page that it belongs to."""
    own = {"admin": url_for("admin.record.show")}
    return own | {page.url.strip("/"): page.url for page in PAGES}


def _key_url(where: Place, link: str) -> str:
    return url_for("admin.keys.key", role=where.role, key=link)


def _query() -> Query | None:
    """What to scan for; None: nothing was asked yet. Raises Problem 400."""
    if "pattern" not in request.args:
        return None
    type_ = request.args.get("type", "")
    if type_ and type_ not in scan.TYPES:
        raise Problem(400, "No such type", f"type: one of {', '.join(scan.TYPES)}.")
    cursor = request.args.get("cursor", "0")
    below = cursor_bound(parts.client_of(parts.place()))
    if not _CURSOR.fullmatch(cursor) or int(cursor) >= below:
        raise Problem(400, "Not a cursor", "cursor: a number that a scan gave.")
    most = scan.LARGEST_STEP
    step = request.args.get("step", str(scan.FIRST_STEP))
    return Query(
        pattern=_pattern(request.args.get("pattern", "")),
        type=type_,
        cursor=int(cursor),
        step=ids.bounded(step, what="step", least=1, most=most),
        scanned=_number("scanned"),
    )


def _pattern(text: str) -> str:
    try:
        return scan.check(text)
    except scan.BadPattern as error:
        raise Problem(400, "Pattern refused", str(error)) from error


def _next_url(where: Place, page: scan.Page | None, found: int) -> str:
    if page is None or page.next is None:
        return ""
    after = page.next
    return url_for(
        "admin.keys.show",
        role=where.role,
        pattern=after.pattern,
        type=after.type,
        cursor=after.cursor,
        step=after.step,
        scanned=after.scanned,
        found=found,
    )


def _wanted() -> changes.Wanted:
    """The keys named, or all that match. Raises Problem 400."""
    form = request.form
    spare = form.get("spare") == "1"
    if form.get("all") == "1":
        type_ = form.get("type", "")
        if type_ and type_ not in scan.TYPES:
            raise Problem(400, "No such type", f"type: one of {', '.join(scan.TYPES)}.")
        pattern = _pattern(form.get("pattern", ""))
        return changes.Wanted(pattern=pattern, type=type_, spare_forever=spare)
    named = tuple(dict.fromkeys(_name(text) for text in form.getlist("key")))
    if not named:
        raise Problem(400, "No key chosen", "Choose keys, or all that match.")
    if len(named) > _MOST_NAMED:
        raise Problem(400, "Too many keys", f"At most {_MOST_NAMED} by name.")
    prefix = f"{parts.settings().namespace}:".encode()
    if not all(name.startswith(prefix) for name in named):
        raise Problem(403, "Not ours", "Only keys of this app can be changed here.")
    return changes.Wanted(names=named, spare_forever=spare)


def _name(text: str) -> bytes:
    name = names.read(text)
    if not 0 < len(name) <= names.LONGEST:
        raise Problem(400, "Not a key", f"key: 1 to {names.LONGEST} bytes.")
    return name


def _number(field: str) -> int:
    """A count from a form or a URL; 0 where there is none."""
    text = request.values.get(field, "").replace(",", "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _again() -> str:
    """The page to come back to, if it is one of these."""
    path = request.form.get("again", "")
    ours = url_for("admin.keys.show")
    is_ours = path == ours or path.startswith((f"{ours}?", f"{ours}/"))
    return path if is_ours and path.isprintable() and "\\" not in path else ours


def _require_known(action: str) -> None:
    if action not in _TITLES:
        raise Problem(404, "Not found", "Keys can be deleted, or given a TTL.")
