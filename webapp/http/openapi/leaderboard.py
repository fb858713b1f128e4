"""The leaderboard: add points, a page, one player with neighbours."""

from typing import Annotated, Any

import msgspec

from webapp.http.openapi.parts import NAME, answer, body, failures, path, query
from webapp.patterns.leaderboard import LARGEST

Name = Annotated[str, msgspec.Meta(pattern=NAME["pattern"])]
Points = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]


class ScoreAdd(msgspec.Struct, forbid_unknown_fields=True):
    """Points for a player; the same operation id again changes nothing."""

    player: Name
    points: Points
    operation_id: Name


class Score(msgspec.Struct):
    player: str
    score: int
    rank: int  # from 1


class PlayerScore(Score):
    neighbours: list[Score]  # up to three on each side, best first


class ScoreList(msgspec.Struct):
    items: list[Score]
    next: str | None  # the URL of the next page


TYPES = (ScoreAdd, Score, PlayerScore, ScoreList)
REFINED: dict[str, Any] = {}

_BOARD = path("board", NAME | {"description": "2026-W47, 2026-Q4 or crowd"})
_RANK = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def paths() -> dict[str, Any]:
    return {
        "/api/leaderboard/{board}": {
            "parameters": [_BOARD],
            "get": {
                "summary": "A page of a board, best first",
                "parameters": [
                    query("after", _RANK | {"description": "a rank"}),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                ],
                "responses": {"200": answer("A page", ScoreList)}
                | failures(400, 404, 503),
            },
        },
        "/api/leaderboard/{board}/scores": {
            "parameters": [_BOARD],
            "post": {
                "summary": "Add points to a week, once per operation id",
                "requestBody": body(ScoreAdd),
                "responses": {"200": answer("Score and rank after it", Score)}
                | failures(400, 403, 404, 409, 413, 415, 503),
            },
        },
        "/api/leaderboard/{board}/players/{player}": {
            "parameters": [_BOARD, path("player", NAME)],
            "get": {
                "summary": "One player and the neighbours, in one round trip",
                "responses": {"200": answer("The player", PlayerScore)}
                | failures(400, 404, 503),
            },
        },
    }
