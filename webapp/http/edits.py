"""The form that edits a product: what it says, or what is wrong with which field."""

from collections.abc import Mapping

from webapp.shop import queries


def parse(form: Mapping[str, str]) -> tuple[int | None, int | None, dict[str, str]]:
    """Price in cents, stock, and what is wrong with which field."""
    errors: dict[str, str] = {}
    price_cents = _cents(form.get("price", ""))
    least, most = queries.PRICE_CENTS
    if price_cents is None or not least <= price_cents <= most:
        errors["price"] = f"A price from 0.01 to {most // 100:,}, for example 48.50."
    text = form.get("stock", "").strip()
    stock = int(text) if text.isdecimal() and len(text) < 10 else None
    if stock is None or stock > queries.STOCK[1]:
        errors["stock"] = f"A whole number from 0 to {queries.STOCK[1]:,}."
    return price_cents, stock, errors


def _cents(text: str) -> int | None:
    whole, _, part = text.strip().partition(".")
    if not (whole.isdecimal() and len(whole) < 10 and len(part) <= 2):
        return None
    if part and not part.isdecimal():
        return None
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)
