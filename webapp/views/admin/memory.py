"""Namespaces by memory, from a sample."""

from flask import Blueprint, request

from webapp.admin import memory
from webapp.connection import budget
from webapp.http import delivery
from webapp.http.errors import Problem
from webapp.views.admin import parts

bp = Blueprint("memory", __name__, url_prefix="/memory")

_DEADLINE_S = 5.0


@bp.get("")
def show() -> str:
    """Each family of keys with its share of the memory."""
    where = parts.place()
    size = request.args.get("sample", str(memory.SAMPLES[0]))
    if size not in map(str, memory.SAMPLES):
        sizes = ", ".join(map(str, memory.SAMPLES))
        raise Problem(400, "Out of bounds", f"sample: one of {sizes}.")
    parts.name_on_the_tape(f"Sample {int(size):,} keys of {where.role}")
    with budget.limited_to(_DEADLINE_S):
        sample = memory.sample(parts.client_of(where), where.namespace, int(size))
    return delivery.page(
        "admin/memory.html",
        where=where,
        sample=sample,
        sizes=memory.SAMPLES,
        size=int(size),
        cost=parts.cost(),
    )
