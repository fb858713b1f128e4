"""The tables of the shop. Primary keys and foreign-key indexes, nothing more.

Money is integer cents, time integer milliseconds since 1970 (UTC).
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

category = Table(
    "category",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
)

product = Table(
    "product",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("category_id", ForeignKey("category.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("price_cents", Integer, nullable=False),
    Column("stock", Integer, nullable=False),
    Column("version", Integer, nullable=False),  # grows with every edit
    Column("seeded_price_cents", Integer, nullable=False),
    Column("seeded_stock", Integer, nullable=False),
)

rating = Table(
    "rating",
    metadata,
    Column("product_id", ForeignKey("product.id"), primary_key=True),
    Column("stars", Integer, primary_key=True),  # 1 to 5
    Column("votes", Integer, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("shopper_id", Integer, nullable=False),
    Column("placed_at_ms", BigInteger, nullable=False),
)

order_line = Table(
    "order_line",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("order_id", ForeignKey("orders.id"), nullable=False, index=True),
    Column("product_id", ForeignKey("product.id"), nullable=False, index=True),
    Column("quantity", Integer, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("product_id", ForeignKey("product.id"), nullable=False, index=True),
    Column("created_at_ms", BigInteger, nullable=False),
    # Ids must never come back: whoever clears a record names it by its id, and
    # that may happen after another process cleared it and an edit made a new one.
    sqlite_autoincrement=True,
)

users = Table(  # guests have no row: they are gone with their last session
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # in lower case
    Column("password_hash", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # an id is never somebody else's later
)

scratch = Table(
    "scratch",
    metadata,
    Column("id", Text, primary_key=True),
    Column("price_cents", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

report = Table(
    "report",
    metadata,
    Column("id", Text, primary_key=True),
    Column("fence", BigInteger, nullable=False),  # the highest number that wrote it
    Column("writer", Text, nullable=False),
    Column("writes", Integer, nullable=False),
)

seeded = Table(
    "seeded",
    metadata,
    Column("id", Integer, primary_key=True),  # one row, committed with the data
)
