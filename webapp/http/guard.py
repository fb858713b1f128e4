"""What every request and every answer must keep to: hosts, origins, headers."""

from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import Forbidden

_SAFE = {"GET", "HEAD", "OPTIONS"}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "object-src 'none'; frame-ancestors 'none'; report-uri /csp"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_YEAR_S = 31_536_000


def init_app(app: Flask) -> None:
    app.before_request(refuse_cross_site)
    app.after_request(add_headers)


def refuse_cross_site() -> None:
    """Refuse what another site makes a browser send; no tokens needed.

    An unsafe request with Sec-Fetch-Site must say same-origin or none. Without it
    (an old browser, a LAN name on plain HTTP), Origin must match Host. With neither
    there is no browser behind it, and it is refused only with a session cookie.
    """
    if request.method in _SAFE:
        return
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        allowed = site in ("same-origin", "none")
    elif (origin := request.headers.get("Origin")) is not None:
        allowed = urlsplit(origin).netloc == request.host
    else:
        allowed = not {"sid", "__Host-sid", "admin"} & request.cookies.keys()
    if not allowed:
        raise Forbidden("This request came from another site.")


def add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
    if response.mimetype == "text/html":
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.update(("Cookie", "HX-Request"))
    return response
