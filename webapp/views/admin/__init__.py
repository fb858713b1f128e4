"""The admin panel: who may come in, and its pages."""

from flask import Blueprint, Response, make_response, redirect, request, url_for
from werkzeug.wrappers import Response as WSGIResponse

from webapp.http import admin_access, delivery
from webapp.http.errors import wants_json
from webapp.views.admin import eviction, keys, memory, record

bp = Blueprint("admin", __name__, url_prefix="/admin")
for page in (keys, memory, eviction, record):
    bp.register_blueprint(page.bp)
bp.after_request(admin_access.renew)

_OPEN = ("admin.sign_in", "admin.enter")


@bp.before_request
def admit() -> Response | None:
    """Everybody else gets the way to sign in, or a problem that names it."""
    if request.endpoint in _OPEN and admin_access.is_on():
        return None
    reads = request.method in ("GET", "HEAD") and not delivery.is_htmx()
    is_person = reads and not wants_json()
    if is_person and admin_access.is_on() and not admin_access.is_admin():
        return _form(401, wanted=request.full_path.rstrip("?"))
    admin_access.require_admin()
    return None


@bp.get("")
def show() -> WSGIResponse:
    """The way to the keys."""
    return redirect(url_for("admin.keys.show"))


@bp.get("/login")
def sign_in() -> WSGIResponse:
    """The way in: a link is used by a button, so that a look at it does not."""
    if admin_access.is_admin():
        return redirect(url_for("admin.keys.show"))
    return _form(200)


@bp.post("/login")
def enter() -> WSGIResponse:
    """In, or asked again."""
    given = request.form
    if not admin_access.enter(
        token=given.get("token", ""), password=given.get("password", "")
    ):
        return _form(401, wrong=True, wanted=given.get("wanted", ""))
    return redirect(_own(given.get("wanted", "")), 303)


@bp.post("/logout")
def leave() -> WSGIResponse:
    """Out, on the server too."""
    admin_access.leave()
    return redirect(url_for("overview.show"), 303)


def _form(status: int, *, wrong: bool = False, wanted: str = "") -> Response:
    html = delivery.page(
        "admin/login.html",
        by_password=admin_access.by_password(),
        token=request.args.get("token", ""),
        wrong=wrong,
        wanted=wanted,
    )
    return make_response(html, status)


def _own(wanted: str) -> str:
    """Where the admin was going, if that is a page of the panel."""
    is_ours = wanted.startswith("/admin/") and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted else url_for("admin.keys.show")
