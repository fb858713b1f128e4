"""The leaderboard API. Its answers are the public interface: keep them stable."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from webapp.http import boards, bodies, delivery, ids
from webapp.http.errors import Problem
from webapp.http.openapi.leaderboard import ScoreAdd
from webapp.patterns.leaderboard import Entry, Refused

bp = Blueprint("leaderboard_api", __name__, url_prefix="/api/leaderboard")

_MOST_ITEMS = 100


@bp.get("/<board>")
def page(board: str) -> Response:
    """The ranks after `after`, best first."""
    boards.board(board)
    after = ids.number(request.args.get("after", "0"), what="after")
    limit = ids.bounded(
        request.args.get("limit", "20"), what="limit", least=1, most=_MOST_ITEMS
    )
    found = boards.scores().page(board, after=after, limit=limit)
    last = after + len(found.entries)
    more = found.entries and last < found.players_count
    query = urlencode({"after": last, "limit": limit})
    return delivery.json(
        {
            "items": [_score(entry) for entry in found.entries],
            "next": f"/api/leaderboard/{board}?{query}" if more else None,
        }
    )


@bp.post("/<board>/scores")
def add(board: str) -> Response:
    """Add points; a repeated operation id changes nothing and answers the same."""
    asked = bodies.parse(ScoreAdd)
    added = boards.add(
        board,
        player=ids.name(asked.player, what="player"),
        points=asked.points,
        operation=ids.name(asked.operation_id, what="operation_id"),
    )
    if isinstance(added, Refused):
        raise boards.refusal(added)
    return delivery.json(
        {"player": added.player, "score": added.score, "rank": added.rank}
    )


@bp.get("/<board>/players/<player>")
def player(board: str, player: str) -> Response:
    """One player with neighbours, in one round trip."""
    boards.board(board)
    found = boards.scores().standing(board, player=ids.name(player, what="player"))
    if found is None:
        raise Problem(404, "Not on the board", f"{player} has no points there.")
    neighbours = [_score(entry) for entry in found.neighbours]
    return delivery.json(_score(found.entry) | {"neighbours": neighbours})


def _score(entry: Entry) -> dict[str, Any]:
    return {"player": entry.player, "score": entry.score, "rank": entry.rank}
