"""What admins changed."""

from flask import Blueprint

from webapp.admin import audit
from webapp.http import delivery
from webapp.views.admin import parts

bp = Blueprint("record", __name__, url_prefix="/record")

_SHOWN = 100


@bp.get("")
def show() -> str:
    """The newest changes first."""
    namespace = parts.settings().namespace
    parts.name_on_the_tape("Read the record")
    entries = audit.latest(parts.clients().durable, namespace, _SHOWN)
    return delivery.page("admin/record.html", entries=entries, cost=parts.cost())
