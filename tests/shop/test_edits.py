import threading

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from webapp.shop import database, outbox, queries
from webapp.shop.database import open_database, reading, run, writing
from webapp.shop.seed import restore


def row(engine: Engine, id: int) -> queries.ProductRow:
    [found] = queries.products(engine, after=id - 1, limit=1)
    return found


def edit(engine: Engine, id: int, **changes: int) -> queries.Edit:
    done = queries.edit_product(engine, id, **changes)
    assert done is not None
    return done


def waiting(engine: Engine) -> list[int]:
    return [entry.product_id for entry in outbox.pending(engine)]


def test_an_edit_changes_what_is_given_and_the_version(engine: Engine) -> None:
    before = row(engine, 1042)
    edit(engine, 1042, price_cents=1)
    after = row(engine, 1042)
    assert (after.price_cents, after.stock) == (1, before.stock)
    assert after.version == before.version + 1


def test_an_edit_answers_the_row_as_it_is_now(engine: Engine) -> None:
    assert edit(engine, 1042, price_cents=5, stock=6).product == row(engine, 1042)


def test_an_edit_of_no_product_is_none_and_leaves_no_record(engine: Engine) -> None:
    assert queries.edit_product(engine, 5_001, stock=1) is None
    assert waiting(engine) == []


def test_an_edit_whose_record_fails_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError

    before = row(engine, 1042)
    monkeypatch.setattr(outbox, "record", fail)
    with pytest.raises(RuntimeError):
        queries.edit_product(engine, 1042, stock=1)
    assert row(engine, 1042) == before


def test_a_reader_that_starts_after_an_edit_sees_it(
    engine: Engine, other: Engine
) -> None:
    for stock in range(50):
        edit(engine, 1042, stock=stock)
        assert row(other, 1042).stock == stock


def test_a_read_transaction_sees_one_moment(engine: Engine, other: Engine) -> None:
    sql = "SELECT version FROM product WHERE id = 1042"
    with reading(engine) as connection:
        before = run(connection, sql)
        edit(other, 1042, stock=1)
        assert run(connection, sql) == before


def test_writers_at_once_lose_no_edit(engine: Engine, other: Engine) -> None:
    def write(into: Engine) -> None:
        for stock in range(50):
            edit(into, 1042, stock=stock)

    writers = [
        threading.Thread(target=write, args=(into,))
        for into in (engine, other, engine, other)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert row(engine, 1042).version == 1 + 4 * 50
    assert len(outbox.pending(engine)) == 4 * 50


def test_a_write_transaction_that_reads_first_keeps_other_writers_out(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 0)
    impatient = open_database(url)
    with writing(engine) as connection:
        [(stock,)] = run(connection, "SELECT stock FROM product WHERE id = 1042")
        with pytest.raises(OperationalError, match="locked"):
            edit(impatient, 1042, stock=0)
        sql = "UPDATE product SET stock = :stock WHERE id = 1042"
        run(connection, sql, stock=stock + 1)
    assert row(engine, 1042).stock == stock + 1
    impatient.dispose()


def test_a_record_outlives_the_process_that_made_it(url: str) -> None:
    first = open_database(url)
    done = edit(first, 1042, stock=1)
    first.dispose()
    second = open_database(url)
    assert [(e.id, e.product_id) for e in outbox.pending(second)] == [
        (done.outbox_id, 1042)
    ]
    second.dispose()


def test_clear_removes_the_named_records_only(engine: Engine) -> None:
    first = edit(engine, 1, stock=1)
    edit(engine, 2, stock=1)
    outbox.clear(engine, [first.outbox_id, 12_345])
    assert waiting(engine) == [2]


def test_an_id_is_not_used_again_after_its_record_was_cleared(engine: Engine) -> None:
    first = edit(engine, 1, stock=1).outbox_id
    outbox.clear(engine, [first])
    assert edit(engine, 1, stock=2).outbox_id > first


def test_replay_invalidates_each_product_once_and_clears(engine: Engine) -> None:
    for id in (2, 1, 2):
        edit(engine, id, stock=1)
    invalidated: list[int] = []
    assert outbox.replay(engine, invalidated.append) == 2
    assert invalidated == [2, 1]
    assert waiting(engine) == []


def test_replay_keeps_the_record_until_invalidate_returned(engine: Engine) -> None:
    edit(engine, 1, stock=1)
    meanwhile: list[int] = []
    outbox.replay(engine, lambda _: meanwhile.extend(waiting(engine)))
    assert meanwhile == [1]


def test_replay_that_fails_keeps_that_record_and_the_later_ones(
    engine: Engine,
) -> None:
    for id in (1, 2, 3):
        edit(engine, id, stock=1)

    def fail_at_2(product_id: int) -> None:
        if product_id == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        outbox.replay(engine, fail_at_2)
    assert waiting(engine) == [2, 3]


def test_an_edit_during_a_replay_keeps_its_record(engine: Engine) -> None:
    edit(engine, 1, stock=1)
    outbox.replay(engine, lambda id: edit(engine, id, stock=2) and None)
    assert waiting(engine) == [1]


def test_two_replays_at_once_clear_all_and_fail_at_nothing(
    engine: Engine, other: Engine
) -> None:
    edit(engine, 1, stock=1)
    inner: list[int] = []
    outbox.replay(engine, lambda _: inner.append(outbox.replay(other, lambda _: None)))
    assert (inner, waiting(engine)) == ([1], [])


def test_restore_puts_price_and_stock_back_and_names_the_products(
    engine: Engine,
) -> None:
    before = row(engine, 7), row(engine, 1042)
    edit(engine, 1042, price_cents=1)
    edit(engine, 7, stock=999)
    assert restore(engine) == [7, 1042]
    after = row(engine, 7), row(engine, 1042)
    assert [(r.price_cents, r.stock) for r in after] == [
        (r.price_cents, r.stock) for r in before
    ]


def test_restore_raises_the_version_again(engine: Engine) -> None:
    edited = edit(engine, 1042, stock=999).product
    restore(engine)
    assert row(engine, 1042).version == edited.version + 1


def test_restore_leaves_a_record_of_each_product(engine: Engine) -> None:
    done = edit(engine, 1042, stock=999)
    outbox.clear(engine, [done.outbox_id])
    restore(engine)
    assert waiting(engine) == [1042]


def test_restore_of_an_untouched_shop_does_nothing(engine: Engine) -> None:
    assert restore(engine) == []
    with engine.connect() as connection:
        sql = "SELECT count(*) FROM product WHERE version > 1"
        assert connection.execute(text(sql)).scalar() == 0
