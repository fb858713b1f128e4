"""Boards by name: checked before Redis is asked, counted when they take points."""

from flask import current_app

from webapp.http import delivery, ids, metrics
from webapp.http.errors import Problem
from webapp.patterns.leaderboard import Added, Refused
from webapp.shop.scores import Scores

_REFUSALS = {
    "closed": (409, "The week is over", "It takes no more points."),
    "too large": (400, "Too many points", "A score is at most 2^53."),
    "reused": (409, "Operation id in use", "It stands for another request."),
}


def scores() -> Scores:
    """This app's boards."""
    found: Scores = current_app.extensions["scores"]
    return found


def board(name: str) -> str:
    """The name of a board that may exist. 400 for no name, 404 for no such board."""
    if not scores().exists(ids.name(name, what="board")):
        raise Problem(
            404,
            "No such board",
            f"There are {scores().week}, {scores().last_week}, {scores().season} "
            "and crowd.",
        )
    return name


def add(name: str, *, player: str, points: int, operation: str) -> Added | Refused:
    """Add points, counted and named on the tape. 404 for what is no week."""
    if board(name) not in (scores().week, scores().last_week):
        raise Problem(404, "Not a week", "Only a week takes points.")
    added = scores().add(name, player=player, points=points, operation=operation)
    if isinstance(added, Refused):
        delivery.verdict("no", added.reason)
    elif added.repeated:
        delivery.verdict("wait", "repeated")
    else:
        metrics.EVENTS.labels("leaderboard", "scores").inc()
        delivery.verdict("ok", "added")
    return added


def refusal(refused: Refused) -> Problem:
    """Why no points were added, as HTTP says it."""
    return Problem(*_REFUSALS[refused.reason])
