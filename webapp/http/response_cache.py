"""JSON endpoints whose answers are kept in Redis, with ETag and 304.

Only for what is the same for everyone: an answer that depends on the visitor would be
given to all. An answer with its receipt is nobody else's, so it has no ETag.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import msgspec
from flask import Response, request

from webapp.connection import recorder
from webapp.http import delivery, reads
from webapp.patterns.response_cache import Answer

_MAY_BE_KEPT = "no-cache"  # by whoever asks again before using it
_VERDICTS = {
    "hit": ("ok", "hit"),
    "miss": ("wait", "miss"),
    "bypass": ("no", "database"),
}

View = Callable[..., Any]


def cached(
    asked: Callable[[], dict[str, Any]], *, kind: type
) -> Callable[[View], Callable[[], Response]]:
    """Answer from Redis what was asked for: known parameters, checked and complete.

    The view gets them as arguments, and returns what is encoded as JSON.
    """

    def decorate(view: View) -> Callable[[], Response]:
        @wraps(view)
        def respond() -> Response:
            return respond_with(read(asked(), view, kind=kind))

        return respond

    return decorate


def read(parameters: dict[str, Any], view: View, *, kind: type) -> Answer:
    """The kept answer, or that of the view, counted and named on the tape."""
    answer = reads.catalog().listed(
        parameters,
        compute=lambda: msgspec.json.encode(view(**parameters)),
        kind=kind,
    )
    reads.count("response_cache", answer.outcome)
    delivery.verdict(*_VERDICTS[answer.outcome])
    return answer


def respond_with(answer: Answer) -> Response:
    """200, or 304 for who has these very bytes."""
    response = delivery.json(msgspec.Raw(answer.body))
    response.headers["X-Cache"] = answer.outcome
    response.headers["Cache-Control"] = _MAY_BE_KEPT
    response.vary.add("X-Tape")
    if recorder.current() is not None:
        return response
    response.set_etag(answer.etag)
    response.make_conditional(request)
    return response
