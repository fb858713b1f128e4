from collections import Counter, defaultdict

import msgspec
import pytest
from sqlalchemy import Engine, text

from webapp.connection.recorder import Recording, recording
from webapp.shop import queries, scratch

DAY_MS = 86_400_000


def rows(engine: Engine, sql: str) -> list[tuple[int, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def write(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def ranks(engine: Engine, category_id: int) -> dict[int, int]:
    """Sales ranks within a category, counted by hand."""
    shelf = rows(engine, f"SELECT id FROM product WHERE category_id = {category_id}")
    sold = Counter({id: 0 for (id,) in shelf})
    for product_id, quantity in rows(
        engine, "SELECT product_id, quantity FROM order_line"
    ):
        if product_id in sold:
            sold[product_id] += quantity
    in_order = sorted(sold, key=lambda id: (-sold[id], id))
    return {id: place for place, id in enumerate(in_order, 1)}


def companions(engine: Engine, product_id: int) -> list[int]:
    """The products that share most orders with one, counted by hand."""
    baskets = defaultdict(set)
    for order_id, id in rows(engine, "SELECT order_id, product_id FROM order_line"):
        baskets[order_id].add(id)
    shared = Counter(
        id for basket in baskets.values() if product_id in basket for id in basket
    )
    del shared[product_id]
    return sorted(shared, key=lambda id: (-shared[id], id))[:5]


def page(engine: Engine, id: int) -> queries.ProductPage:
    found = queries.product(engine, id)
    assert found is not None
    return found


def test_product_1042_is_an_enamel_kettle_of_the_kitchen(shop: Engine) -> None:
    kettle = page(shop, 1042)
    assert (kettle.name, kettle.category) == ("Enamel kettle, 1.7 l", "kitchen")


def test_a_product_has_the_shape_of_the_public_interface(shop: Engine) -> None:
    shape = msgspec.to_builtins(page(shop, 1042))
    fields = "id name category price_cents stock version rating sales_rank bought_with"
    assert list(shape) == fields.split()
    assert list(shape["rating"]) == ["count", "average"]
    assert [list(other) for other in shape["bought_with"]] == [["id", "name"]] * 5


def test_sales_ranks_equal_a_count_by_hand(shop: Engine) -> None:
    expected = ranks(shop, category_id=3)
    sample = [*sorted(expected)[::50], max(expected, key=lambda id: expected[id])]
    assert {id: page(shop, id).sales_rank for id in sample} == {
        id: expected[id] for id in sample
    }


def test_products_that_sell_alike_are_ranked_by_id(engine: Engine) -> None:
    write(engine, "DELETE FROM order_line WHERE product_id IN (1042, 1054)")
    [(kitchen,)] = rows(engine, "SELECT count(*) FROM product WHERE category_id = 1")
    assert [page(engine, id).sales_rank for id in (1042, 1054)] == [
        kitchen - 1,
        kitchen,
    ]


def test_an_order_older_than_30_days_does_not_count_for_the_rank(
    engine: Engine,
) -> None:
    before = page(engine, 1054).sales_rank
    write(
        engine,
        f"""INSERT INTO orders SELECT 999999, 1, max(placed_at_ms) - {30 * DAY_MS}
            FROM orders""",
        "INSERT INTO order_line VALUES (999999, 999999, 1054, 1000000)",
    )
    assert page(engine, 1054).sales_rank == before > 1


def test_a_new_order_moves_the_30_days(engine: Engine) -> None:
    write(
        engine,
        f"""INSERT INTO orders SELECT 999999, 1, max(placed_at_ms) + {30 * DAY_MS}
            FROM orders""",
        "INSERT INTO order_line VALUES (999999, 999999, 1054, 1)",
    )
    assert page(engine, 1054).sales_rank == 1


def test_bought_with_equals_a_count_by_hand(shop: Engine) -> None:
    for id in (1, 1042, 4999):
        found = [other.id for other in page(shop, id).bought_with]
        assert found == companions(shop, id)


def test_products_that_share_as_many_orders_are_listed_by_id(engine: Engine) -> None:
    write(
        engine,
        "DELETE FROM order_line WHERE product_id = 1042",
        "INSERT INTO orders VALUES (999999, 1, 1793448000000)",
        """INSERT INTO order_line (order_id, product_id, quantity)
           VALUES (999999, 9, 1), (999999, 1042, 1), (999999, 7, 1), (999999, 8, 1)""",
    )
    assert [other.id for other in page(engine, 1042).bought_with] == [7, 8, 9]


def test_the_rating_is_count_and_mean_of_all_votes(engine: Engine) -> None:
    write(
        engine,
        "DELETE FROM rating WHERE product_id = 1042",
        "INSERT INTO rating VALUES (1042, 1, 1), (1042, 5, 2)",
    )
    assert page(engine, 1042).rating == queries.Rating(count=3, average=3.67)


def test_a_product_without_votes_has_a_rating_of_zero(engine: Engine) -> None:
    write(engine, "DELETE FROM rating WHERE product_id = 1042")
    assert page(engine, 1042).rating == queries.Rating(count=0, average=0.0)


@pytest.mark.parametrize("id", [0, 5_001, 2**63 - 1])
def test_a_product_that_does_not_exist_is_none(shop: Engine, id: int) -> None:
    assert queries.product(shop, id) is None


def test_products_begin_after_the_given_id_and_end_at_the_limit(shop: Engine) -> None:
    found = queries.products(shop, after=1041, limit=3)
    assert [row.name for row in found] == [
        "Enamel kettle, 1.7 l",
        "Stoneware mug",
        "Desk lamp, brass",
    ]


def test_products_of_a_category_are_all_of_them_by_id(shop: Engine) -> None:
    found = queries.products(shop, category="kitchen", limit=5_000)
    assert {row.category for row in found} == {"kitchen"}
    assert [row.id for row in found] == sorted(row.id for row in found)
    assert len(found) == len(ranks(shop, category_id=1))


def test_an_unknown_category_has_no_products(shop: Engine) -> None:
    assert queries.products(shop, category="kitchen'; --") == []


def test_categories_are_named_in_order_and_hold_all_products(shop: Engine) -> None:
    found = queries.categories(shop)
    assert [category.name for category in found] == sorted(c.name for c in found)
    assert sum(category.products for category in found) == 5_000


def test_a_page_is_recorded_as_four_statements_with_their_values(shop: Engine) -> None:
    with recording(Recording("test")) as tape:
        queries.product(shop, 1042)
    assert [sql.rows for sql in tape.sql] == [1, 1, 1, 5]
    assert tape.sql[0].text.endswith("WHERE product.id = 1042")
    assert "category.slug = 'kitchen'" in tape.sql[2].text
    assert all(sql.us > 0 for sql in tape.sql)


def test_a_recorded_text_is_valid_sql_even_with_quotes(shop: Engine) -> None:
    with recording(Recording("test")) as tape:
        queries.products(shop, category="it's")
    assert "category.slug = 'it''s'" in tape.sql[0].text
    assert rows(shop, tape.sql[0].text) == []


def test_an_edit_is_recorded_with_the_rows_it_touched(engine: Engine) -> None:
    with recording(Recording("test")) as tape:
        queries.edit_product(engine, 1042, price_cents=4900)
    assert tape.sql[0].text.startswith(
        "UPDATE product SET price_cents = 4900, version = version + 1 WHERE id = 1042"
    )
    assert [sql.rows for sql in tape.sql] == [1, 1]


def test_a_scratch_row_is_put_set_read_and_dropped(engine: Engine) -> None:
    scratch.put_scratch(engine, "a", 100)
    scratch.set_scratch_price(engine, "a", 200)
    assert scratch.scratch_price(engine, "a") == 200
    scratch.drop_scratch(engine, "a")
    assert scratch.scratch_price(engine, "a") is None


def test_a_scratch_row_that_is_put_again_begins_anew(engine: Engine) -> None:
    scratch.put_scratch(engine, "a", 100)
    scratch.set_scratch_price(engine, "a", 200)
    scratch.put_scratch(engine, "a", 300)
    assert rows(engine, "SELECT * FROM scratch") == [("a", 300, 1)]
