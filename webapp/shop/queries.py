"""What the shop asks its database, and edits. The tape shows these statements."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Engine

from webapp.shop import outbox
from webapp.shop.database import reading, run, writing

PRICE_CENTS = (1, 10_000_000)  # lowest and highest that an edit may set
STOCK = (0, 1_000_000)

_RANKED_DAYS = 30
_RANKED_MS = _RANKED_DAYS * 24 * 3_600_000
_BOUGHT_WITH = 5

_PRODUCT_ROW = """SELECT product.id, product.name, category.slug AS category,
         product.price_cents, product.stock, product.version
       FROM product JOIN category ON category.id = product.category_id"""


class ProductRow(msgspec.Struct, frozen=True):
    """What a list shows of a product."""

    id: int
    name: str
    category: str  # its slug
    price_cents: int
    stock: int
    version: int  # grows with every edit


class Rating(msgspec.Struct, frozen=True):
    count: int
    average: float  # stars, to two decimals; 0.0 where nobody voted


class Companion(msgspec.Struct, frozen=True):
    id: int
    name: str


class ProductPage(ProductRow, frozen=True):
    """All that a product's page shows."""

    rating: Rating
    sales_rank: int  # 1 sold most of its category
    bought_with: tuple[Companion, ...]  # most shared orders first, at most five


class Category(msgspec.Struct, frozen=True):
    slug: str
    name: str
    products: int


class Edit(msgspec.Struct, frozen=True):
    """An edit that is committed, and the outbox record that waits for Redis."""

    product: ProductRow
    outbox_id: int


def product(engine: Engine, id: int) -> ProductPage | None:
    """Everything on a product's page, from one snapshot: four statements."""
    with reading(engine) as connection:
        rows = run(connection, f"{_PRODUCT_ROW} WHERE product.id = :id", id=id)
        if not rows:
            return None
        return ProductPage(
            **rows[0]._asdict(),
            rating=_rating(connection, id),
            sales_rank=_sales_rank(connection, id, rows[0].category),
            bought_with=_bought_with(connection, id),
        )


def rating(engine: Engine, id: int) -> Rating:
    """A product's votes, added up."""
    with reading(engine) as connection:
        return _rating(connection, id)


def products(
    engine: Engine, *, category: str | None = None, after: int = 0, limit: int = 20
) -> list[ProductRow]:
    """Products with larger ids than `after`, by id; of one category, if given."""
    values: dict[str, Any] = {"after": after, "limit": limit}
    of_category = ""
    if category is not None:
        values["category"] = category
        of_category = "AND category.slug = :category"
    sql = f"""{_PRODUCT_ROW}
       WHERE product.id > :after {of_category}
       ORDER BY product.id LIMIT :limit"""
    with reading(engine) as connection:
        return [ProductRow(*row) for row in run(connection, sql, **values)]


def products_by_id(engine: Engine, ids: tuple[int, ...]) -> dict[int, ProductRow]:
    """Those of the products that there are, in one statement."""
    if not ids:
        return {}
    with reading(engine) as connection:
        rows = run(connection, f"{_PRODUCT_ROW} WHERE product.id IN :ids", ids=ids)
    return {row.id: ProductRow(*row) for row in rows}


def categories(engine: Engine) -> list[Category]:
    """All categories by name, with how many products each has."""
    with reading(engine) as connection:
        rows = run(
            connection,
            """SELECT category.slug, category.name, count(product.id) AS products
               FROM category LEFT JOIN product ON product.category_id = category.id
               GROUP BY category.slug, category.name ORDER BY category.name""",
        )
    return [Category(*row) for row in rows]


def product_ids(engine: Engine) -> list[int]:
    """All of them."""
    with reading(engine) as connection:
        return [id for (id,) in run(connection, "SELECT id FROM product")]


def has_category(engine: Engine, slug: str) -> bool:
    with reading(engine) as connection:
        rows = run(connection, "SELECT id FROM category WHERE slug = :slug", slug=slug)
    return bool(rows)


def category_of(engine: Engine, id: int) -> str | None:
    """The slug of a product's category, which never changes; None: no product."""
    with reading(engine) as connection:
        rows = run(
            connection,
            """SELECT category.slug FROM category
                 JOIN product ON product.category_id = category.id
               WHERE product.id = :id""",
            id=id,
        )
    return str(rows[0].slug) if rows else None


def edit_product(
    engine: Engine, id: int, *, price_cents: int | None = None, stock: int | None = None
) -> Edit | None:
    """Set what is given, raise the version and write the outbox record, or none of it.

    Returns None if there is no such product. The bounds are the caller's to check.
    """
    given = {"price_cents": price_cents, "stock": stock}
    changes = {name: value for name, value in given.items() if value is not None}
    assignments = "".join(f"{name} = :{name}, " for name in changes)
    sql = f"""UPDATE product SET {assignments}version = version + 1
       WHERE id = :id
       RETURNING id, name,
         (SELECT slug FROM category WHERE category.id = product.category_id),
         price_cents, stock, version"""  # noqa: S608 - fixed column names
    with writing(engine) as connection:
        rows = run(connection, sql, id=id, **changes)
        if not rows:
            return None
        return Edit(ProductRow(*rows[0]), outbox.record(connection, id))


def _rating(connection: Connection, id: int) -> Rating:
    [row] = run(
        connection,
        """SELECT sum(votes) AS voters, 1.0 * sum(stars * votes) / sum(votes) AS average
           FROM rating WHERE product_id = :id""",
        id=id,
    )
    return Rating(int(row.voters or 0), round(float(row.average or 0), 2))


def _sales_rank(connection: Connection, id: int, category: str) -> int:
    """The place by quantity sold in the 30 days before the newest order."""
    [row] = run(
        connection,
        """WITH ranking AS (
             SELECT product.id, row_number() OVER (
               ORDER BY coalesce(sum(order_line.quantity) FILTER (
                 WHERE orders.placed_at_ms >
                   (SELECT max(placed_at_ms) FROM orders) - :window_ms), 0) DESC,
               product.id) AS place
             FROM product JOIN category ON category.id = product.category_id
               LEFT JOIN order_line ON order_line.product_id = product.id
               LEFT JOIN orders ON orders.id = order_line.order_id
             WHERE category.slug = :category
             GROUP BY product.id)
           SELECT place FROM ranking WHERE id = :id""",
        id=id,
        category=category,
        window_ms=_RANKED_MS,
    )
    return int(row.place)


def _bought_with(connection: Connection, id: int) -> tuple[Companion, ...]:
    rows = run(
        connection,
        """SELECT product.id, product.name
           FROM order_line AS this
             JOIN order_line AS other ON other.order_id = this.order_id
             JOIN product ON product.id = other.product_id
           WHERE this.product_id = :id AND other.product_id <> :id
           GROUP BY product.id, product.name
           ORDER BY count(DISTINCT other.order_id) DESC, product.id
           LIMIT :most""",
        id=id,
        most=_BOUGHT_WITH,
    )
    return tuple(Companion(*row) for row in rows)
