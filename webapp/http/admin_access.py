"""Who is an admin. The one place to change when sign-in does: `require_admin`.

An admin signs in with the link that a start on loopback prints, or with
ADMIN_PASSWORD. A signed cookie names the session: 15 minutes idle, 2 hours at most,
ended for good by signing out.
"""

from typing import Any

from flask import (
    Flask,
    Response,
    current_app,
    g,
    has_request_context,
    request,
)
from itsdangerous import BadSignature, TimestampSigner

from webapp.admin import sign_in
from webapp.http.errors import Problem
from webapp.settings import Settings

IDLE_S = 15 * 60
_COOKIE = "admin"


def init_app(app: Flask) -> None:
    app.extensions["admin_attempts"] = sign_in.Attempts()
    app.jinja_env.globals.update(is_admin=is_admin)


def is_on() -> bool:
    """Whether anybody can become an admin here."""
    return bool(_settings().admin_password) or _settings().is_loopback


def by_password() -> bool:
    return bool(_settings().admin_password)


def is_admin() -> bool:
    """Whether this request is an admin's; outside of a request nobody is."""
    if not has_request_context() or _COOKIE not in request.cookies:
        return False
    if "admin" not in g:
        g.admin = _session()
    return g.admin is not None


def require_admin() -> None:
    """Raises Problem: 404 where the panel is off, 401 for anybody but an admin."""
    if not is_on():
        raise Problem(
            404,
            "The admin panel is off",
            "It is on with ADMIN_PASSWORD, or where HOST is loopback.",
        )
    if not is_admin():
        raise Problem(401, "For admins only", "Sign in as admin first.")


def who() -> str:
    """What the record of changes calls this admin."""
    return sign_in.name_of(g.admin)


def enter(*, token: str, password: str) -> bool:
    """Whether one of them is right. Raises Problem 429 after five wrong ones."""
    address = request.remote_addr or ""
    attempts: sign_in.Attempts = current_app.extensions["admin_attempts"]
    if wait_s := attempts.wait_s(address):
        raise Problem(
            429, "Too many attempts", f"Try again in {wait_s} s.", retry_after_s=wait_s
        )
    settings = _settings()
    if settings.admin_password:
        right = sign_in.is_password(password, settings.admin_password)
    else:
        right = sign_in.take_link(settings.instance_path, token)
    if right:
        if is_admin():
            leave()
        g.admin = sign_in.begin(settings.instance_path)
    else:
        attempts.note(address)
    return right


def leave() -> None:
    """This session ends, on the server too."""
    sign_in.end(_settings().instance_path, g.admin)
    g.admin = None


def renew(response: Response) -> Response:
    """The cookie for the next 15 minutes, and nothing of it in any cache.

    A request that was refused before anybody looked into the session leaves it alone:
    else a page of another site could sign an admin out.
    """
    response.headers["Cache-Control"] = "no-store"
    flags: Any = {
        "secure": request.is_secure,
        "httponly": True,
        "samesite": "Strict",
    }
    if session := g.get("admin"):
        signed = _signer().sign(session).decode()
        response.set_cookie(_COOKIE, signed, **flags)
    elif "admin" in g and _COOKIE in request.cookies:
        response.delete_cookie(_COOKIE, **flags)
    return response


def _session() -> str | None:
    try:
        signed = _signer().unsign(request.cookies[_COOKIE], max_age=IDLE_S)
    except BadSignature:
        return None
    session = signed.decode()
    is_open = sign_in.is_open(_settings().instance_path, session)
    return session if is_open and is_on() else None


def _signer() -> TimestampSigner:
    return TimestampSigner(str(current_app.config["SECRET_KEY"]), salt="admin")


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings
