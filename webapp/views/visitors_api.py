"""The visitors API. Its answer is the public interface: keep it stable."""

from flask import Blueprint, Response

from webapp.http import delivery
from webapp.http.openapi.visitors import VisitorCount, VisitorCounts
from webapp.http.visits import visits
from webapp.shop.visits import Period

bp = Blueprint("visitors_api", __name__, url_prefix="/api/visitors")


@bp.get("")
def show() -> Response:
    """Both counts of seven days and of their week, and the bytes of each."""
    days, week = visits().periods()
    return delivery.json(VisitorCounts([_count(day) for day in days], _count(week)))


def _count(period: Period) -> VisitorCount:
    return VisitorCount(
        date=period.date,
        exact=period.count.exact,
        estimate=period.count.estimate,
        error_percent=period.count.error_percent,
        exact_bytes=period.bytes.exact,
        estimate_bytes=period.bytes.estimate,
    )
