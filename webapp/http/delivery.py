"""Records each page and each htmx call, and hands its receipt to the browser.

JSON calls are recorded only with `X-Tape: 1`, so load tests do not pay for it. Every
request, recorded or not, has one deadline for all its Redis calls.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import msgspec
from flask import (
    Flask,
    Response,
    current_app,
    g,
    make_response,
    render_template,
    request,
)
from werkzeug.wrappers import Request

from webapp.connection import budget, recorder
from webapp.connection.recorder import Recording
from webapp.http import metrics, tape, visits
from webapp.settings import Settings

REDIS_DEADLINE_S = 1.0
DISTANCES_MS = (0, 1, 20, 80)
_UNRECORDED = ("/static/", "/ws/", "/healthz", "/readyz", "/metrics", "/csp")


class Recorder:
    """WSGI middleware: sets the sink and the deadline, and always resets them."""

    def __init__(self, wsgi_app: Any, *, demo: bool) -> None:
        self.wsgi_app = wsgi_app
        self.demo = demo

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        asked = Request(environ)
        with ExitStack() as stack:
            stack.enter_context(budget.limited_to(REDIS_DEADLINE_S))
            if _is_recorded(asked):
                stack.enter_context(recorder.recording(self._recording(asked)))
            else:
                stack.enter_context(recorder.unrecorded())
            return self.wsgi_app(environ, start_response)

    def _recording(self, asked: Request) -> Recording:
        distance = asked.cookies.get("distance", "")
        allowed = self.demo and distance in map(str, DISTANCES_MS)
        return Recording(
            cause=f"{asked.method} {asked.path}",
            see_inside=asked.cookies.get("inside") == "1",
            distance_ms=int(distance) if allowed else 0,
        )


def init_app(app: Flask, settings: Settings) -> None:
    app.wsgi_app = Recorder(app.wsgi_app, demo=settings.demo)  # type: ignore[method-assign]
    app.before_request(_begin)
    app.after_request(_count)


def is_htmx() -> bool:
    """Whether a part of a page is asked for, not a whole one."""
    return bool(request.headers.get("HX-Request"))


def answer(page_name: str, status: int = 200, **context: Any) -> Response:
    """The page of that name, or for htmx its fragment."""
    if is_htmx():
        html = fragment(f"{page_name}/_fragment.html", **context)
    else:
        html = page(f"{page_name}/show.html", **context)
    return make_response(html, status)


def page(template: str, *, recordings: Iterable[Recording] = (), **context: Any) -> str:
    """A whole page: its own receipt, that of the visit it is, and the recordings'."""
    visitor = visits.of_page_view()
    counted = [visitor.receipt] if visitor and visitor.receipt else []
    return _whole(template, (*counted, *recordings), context)


def problem(**context: Any) -> str:
    """What went wrong, for a person; what was asked of Redis is on the tape, too."""
    for own in g.get("delivered", ()):
        if own.failed:
            own.housekeeping = False  # it is why this answer is one
    if is_htmx():
        return fragment("_error.html", **context)
    return _whole("error.html", (), context)


def fragment(
    template: str, *, recordings: Iterable[Recording] = (), **context: Any
) -> str:
    """A part of a page for htmx, with receipts out of band, oldest first."""
    receipts = [*map(_receipt, recordings), *_own_receipts()]
    html = render_template(template, **context)
    return html + render_template(
        "_receipts_oob.html", receipts=[*_delivered(), *receipts]
    )


def json(body: Any, status: int = 200) -> Response:
    """The body as it is, or with its receipt as `{data, tape}` if that was asked."""
    if (own := recorder.current()) is not None:
        body = {"data": body, "tape": _receipt(own)}
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


def verdict(tone: str, text: str) -> None:
    """What the receipt of this request says in one or two words."""
    if (own := recorder.current()) is not None:
        own.verdict = tone, text


def part_of(page: str) -> None:
    """The receipts of this request belong to that page."""
    g.part_of = page


def housekeeping() -> None:
    """This request is the page looking at itself: hidden on the tape by default."""
    if (own := recorder.current()) is not None:
        own.housekeeping = True


@contextmanager
def aside(cause: str) -> Iterator[Recording]:
    """Record what follows as housekeeping, a receipt of its own."""
    own = Recording(cause, housekeeping=True)
    if (outer := recorder.current()) is not None:
        own.see_inside, own.distance_ms = outer.see_inside, outer.distance_ms
    with recorder.recording(own):
        yield own


@contextmanager
def beside(cause: str, *, housekeeping: bool = False) -> Iterator[None]:
    """A receipt of its own for what follows; of a JSON call it is a part."""
    if request.path.startswith("/api/"):
        yield
        return
    with aside(cause) as own:
        own.housekeeping = housekeeping
        deliver([own])
        yield


def deliver(recordings: Iterable[Recording]) -> None:
    """Have the answer bring these receipts, too, whatever it is."""
    g.setdefault("delivered", []).extend(recordings)


def own_receipt() -> tape.Receipt | None:
    """The receipt of this request so far; None if it has asked for nothing."""
    own = recorder.current()
    return _receipt(own) if own is not None and (own.trips or own.sql) else None


def _whole(
    template: str, recordings: Iterable[Recording], context: dict[str, Any]
) -> str:
    receipts = [*_own_receipts(), *map(_receipt, recordings)]
    # Rendering is no part of what these time, but may ask who is signed in.
    return render_template(
        template, receipts=lambda: [*receipts, *_delivered()], **context
    )


def _own_receipts() -> list[tape.Receipt]:
    return [own] if (own := own_receipt()) else []


def _delivered() -> list[tape.Receipt]:
    return [_receipt(r) for r in g.get("delivered", ()) if r.trips]


def _receipt(recording: Recording) -> tape.Receipt:
    settings: Settings = current_app.extensions["settings"]
    page = g.get("part_of") or request.blueprint or ""
    return tape.receipt(recording, page=page, namespace=settings.namespace)


def _is_recorded(asked: Request) -> bool:
    if asked.path.startswith(_UNRECORDED):
        return False
    if asked.path.startswith("/api/"):
        return asked.headers.get("X-Tape") == "1"
    return True


def _begin() -> None:
    g.began = perf_counter()


def _count(response: Response) -> Response:
    endpoint = request.endpoint or "none"
    if endpoint not in ("static", "live.socket") and "began" in g:
        metrics.REQUESTS.labels(endpoint, str(response.status_code)).inc()
        metrics.LATENCY.labels(endpoint).observe(perf_counter() - g.began)
    return response
