"""The leaderboard: add points, a page at any depth, one player with neighbours."""

import re
import secrets
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, redirect, request

import webapp.patterns.leaderboard as leaderboard
from webapp import keys, words
from webapp.connection import budget, recorder
from webapp.experiments.leaderboard import EXPERIMENTS
from webapp.http import boards, delivery, events, ids, keypanel, lab, sources
from webapp.http.boards import scores
from webapp.http.errors import Problem
from webapp.patterns.leaderboard import Added, Refused
from webapp.shop.scores import CROWD, CROWD_SIZE, GROUP

bp = Blueprint("leaderboard", __name__, url_prefix="/leaderboard")

_PER_PAGE = 10
_STEP_DEADLINE_S = 5.0  # for thousands of made-up players
_POINTS = 500  # the most that the page's fader gives
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_FILES = (
    sources.python(Path(leaderboard.__file__), start="class Leaderboard"),
    sources.lua("leaderboard/add"),
    sources.lua("leaderboard/standing"),
)


@bp.get("")
def show() -> Response:
    """A board's page, and where one player stands on it."""
    name = boards.board(request.args.get("board") or scores().week)
    after = ids.number(_after(), what="rank")
    page = scores().page(name, after=after, limit=_PER_PAGE)
    player = _player()
    standing = scores().standing(name, player=player) if player else None
    return _respond(
        name,
        player,
        entries=page.entries,
        players_count=page.players_count,
        after=after,
        window=standing.window if standing else (),
    )


@bp.post("/scores")
def add() -> Response:
    """Points are added, and where that puts the player is shown."""
    name = request.form.get("board") or scores().week
    player = request.form.get("player", "").strip()
    if not _NAME.fullmatch(player):
        error = "Letters, digits, - and _, at most 64 of them."
        return _respond(name, player, error=error, status=422)
    points = ids.bounded(
        request.form.get("points", ""), what="points", least=1, most=_POINTS
    )
    operation = ids.name(request.form.get("operation_id", ""), what="operation_id")
    added = boards.add(name, player=player, points=points, operation=operation)
    if isinstance(added, Refused):
        raise boards.refusal(added)
    if not added.repeated:
        events.tell_score(player, points, name)
    return _added(name, added, points, operation)


@bp.get("/keys")
def show_keys() -> str:
    """The sorted sets behind a board, and the last operation."""
    name = boards.board(request.args.get("board") or scores().week)
    names = [scores().key(name)]
    if name == scores().season:
        names += scores().parts()
    if operation := request.args.get("operation"):
        ids.name(operation, what="operation")
        names.append(keys.key(_namespace(), keys.OPERATION, GROUP, operation))
    return keypanel.show(lambda: keypanel.rows(scores().client, names))


@bp.post("/samples")
def add_samples() -> Response:
    """An empty board gets some players."""
    _require_demo()
    scores().add_samples()
    delivery.verdict("ok", "added")
    return _shown(scores().week)


@bp.get("/crowd")
def show_crowd() -> Response:
    """How many made-up players there are; nobody fills."""
    delivery.housekeeping()
    players = scores().page(CROWD, after=0, limit=1).players_count
    return _crowd(players, filling=False)


@bp.post("/crowd")
def fill_crowd() -> Response:
    """The next made-up players; the answer asks for more until it is full."""
    _require_demo()
    if (own := recorder.current()) is not None:
        own.see_inside = False  # thousands of arguments are no reading
    with budget.limited_to(_STEP_DEADLINE_S):
        players = scores().fill_crowd()
    delivery.verdict("ok", f"{players:,} players")
    return _crowd(players, filling=players < CROWD_SIZE)


@bp.post("/crowd/remove")
def remove_crowd() -> Response:
    """The made-up players are gone."""
    _require_demo()
    scores().remove_crowd()
    delivery.verdict("ok", "removed")
    return _shown(CROWD)


@bp.post("/experiments/<name>")
def run(name: str) -> Response:
    """One Break it card after a real run; its receipts are on the tape."""
    ran = lab.run(EXPERIMENTS, name, keys.BOARD_LAB)
    if delivery.is_htmx():
        return make_response(ran.card())
    return _respond(scores().week, _player(), outcomes=ran.outcomes)


def _added(name: str, added: Added, points: int, operation: str) -> Response:
    response = _respond(
        name,
        added.player,
        entries=added.top,
        window=added.window,
        added=added,
        points=points,
        operation=operation,
    )
    response.set_cookie(
        "player",
        added.player,
        path="/leaderboard",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )
    return response


def _respond(name: str, player: str, *, status: int = 200, **more: Any) -> Response:
    return delivery.answer("leaderboard", status, **_context(name, player) | more)


def _context(name: str, player: str) -> dict[str, Any]:
    return {
        "board": name,
        "boards": {
            scores().week: "This week",
            scores().last_week: "Last week",
            scores().season: "Season",
            CROWD: "A million",
        },
        "week": scores().week,
        "season": scores().season,
        "player": player,
        "entries": (),
        "window": (),
        "players_count": None,
        "after": 0,
        "per_page": _PER_PAGE,
        "points": 50,
        "most_points": _POINTS,
        "crowd_size": CROWD_SIZE,
        "next_operation": secrets.token_hex(8),
        "experiments": EXPERIMENTS,
        "outcomes": {},
        "words": words.LEADERBOARD,
        "sources": sources.with_badges(_FILES, delivery.own_receipt()),
    }


def _crowd(players: int, *, filling: bool) -> Response:
    if not delivery.is_htmx():
        return redirect("/leaderboard?board=crowd", 303)  # type: ignore[return-value]
    return make_response(
        delivery.fragment(
            "leaderboard/_crowd.html",
            players_count=players,
            crowd_size=CROWD_SIZE,
            filling=filling,
        )
    )


def _shown(name: str) -> Response:
    """The board as it is now."""
    if not delivery.is_htmx():
        return redirect(f"/leaderboard?board={name}", 303)  # type: ignore[return-value]
    page = scores().page(name, after=0, limit=_PER_PAGE)
    return _respond(
        name, _player(), entries=page.entries, players_count=page.players_count
    )


def _after() -> str:
    """What `after` or, for people, `rank` says."""
    if rank := request.args.get("rank"):
        return str(max(ids.number(rank, what="rank") - 1, 0))
    return request.args.get("after") or "0"


def _player() -> str:
    """Who is looked for: as asked, or as last time; empty: nobody."""
    if asked := request.args.get("player", "").strip():
        return ids.name(asked, what="player")
    kept = request.cookies.get("player", "")
    return kept if _NAME.fullmatch(kept) else ""


def _namespace() -> str:
    namespace: str = current_app.extensions["settings"].namespace
    return namespace


def _require_demo() -> None:
    if not current_app.extensions["settings"].demo:
        raise Problem(403, "Not in demo mode", "Start with DEMO=1 to allow this.")
