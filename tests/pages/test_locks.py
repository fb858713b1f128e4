"""The locks page on fakeredis: two workers, their leases, numbers and late writes."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from webapp.experiments.distributed_lock import EXPERIMENTS
from webapp.http import holders
from webapp.live.hub import Hub
from webapp.live.outbox import Outbox
from webapp.shop.nightly import Entry, Journal, Nightly

HTMX = {"HX-Request": "true"}


@pytest.fixture
def durable(app: Flask) -> redis.Redis:
    client: redis.Redis = app.extensions["clients"].durable
    return client


@pytest.fixture
def nightly(app: Flask) -> Nightly:
    found: Nightly = app.extensions["nightly"]
    return found


class Workers:
    """A browser with the page open: it sends on the leases that it was given."""

    def __init__(self, client: FlaskClient) -> None:
        self.client, self.leases = client, dict[str, str]()

    def do(self, act: str) -> str:
        form = self.leases | {"do": act}
        answer = self.client.post("/locks/report", data=form, headers=HTMX)
        assert answer.status_code == 200, answer.text
        found = re.findall(r'name="(lease_[AB])" value="([^"]*)"', answer.text)
        self.leases = dict(found)
        said = re.search(r'role="status">\s*<span[^>]*>([^<]*)<', answer.text)
        return said[1] if said else ""


@pytest.fixture
def workers(client: FlaskClient) -> Workers:
    return Workers(client)


def end_lease(durable: redis.Redis, nightly: Nightly) -> None:
    durable.pexpire(nightly.names.lock, 0)


# Two workers


def test_of_two_workers_one_takes_the_lock_and_one_is_told(workers: Workers) -> None:
    assert workers.do("A:take") == "Worker A took the lock."
    assert workers.do("B:take") == "Worker B was told that it is taken."


def test_in_another_browser_the_lock_is_taken_too(app: Flask, workers: Workers) -> None:
    workers.do("A:take")
    other = Workers(app.test_client())
    assert other.do("B:take") == "Worker B was told that it is taken."


def test_after_a_release_the_other_worker_gets_it(workers: Workers) -> None:
    workers.do("A:take")
    assert workers.do("A:release") == "Worker A released the lock."
    assert workers.do("B:take") == "Worker B took the lock."


def test_a_holder_writes_under_its_number(workers: Workers, nightly: Nightly) -> None:
    workers.do("A:take")
    assert workers.do("A:write") == "Worker A wrote the report."
    report = nightly.report()
    assert report
    assert str(report.fence) == workers.leases["lease_A"].split(":")[1]


def test_a_late_write_is_refused_after_the_next_holder_wrote(
    workers: Workers, nightly: Nightly, durable: redis.Redis
) -> None:
    workers.do("A:take")
    end_lease(durable, nightly)
    workers.do("B:take")
    workers.do("B:write")
    assert workers.do("A:write") == "Worker A wrote late and was refused."
    report = nightly.report()
    assert report
    assert (report.writer, report.writes) == ("B", 1)


def test_of_200_late_writes_none_is_accepted(
    nightly: Nightly, durable: redis.Redis
) -> None:
    accepted = 0
    for _ in range(200):
        late = nightly.take(None).lease
        end_lease(durable, nightly)
        other = nightly.take(None).lease
        assert late
        assert other
        assert nightly.write("B", other).act == "wrote"
        accepted += nightly.write("A", late).act == "wrote"
        nightly.release(other)
    assert accepted == 0


def test_who_outlived_its_lease_can_neither_extend_nor_release(
    workers: Workers, nightly: Nightly, durable: redis.Redis
) -> None:
    workers.do("A:take")
    end_lease(durable, nightly)
    workers.do("B:take")
    assert workers.do("A:extend") == "Worker A was told that its lease had ended."
    assert workers.do("A:release") == "Worker A was told that its lease had ended."
    assert durable.exists(nightly.names.lock)


def test_an_extension_keeps_the_number(workers: Workers) -> None:
    workers.do("A:take")
    before = dict(workers.leases)
    assert workers.do("A:extend") == "Worker A extended its lease."
    assert workers.leases == before


def test_a_worker_that_is_told_to_wait_keeps_its_old_lease(
    workers: Workers, nightly: Nightly, durable: redis.Redis
) -> None:
    workers.do("A:take")
    before = workers.leases["lease_A"]
    end_lease(durable, nightly)
    workers.do("B:take")
    workers.do("A:take")
    assert workers.leases["lease_A"] == before


def test_numbers_are_of_use_after_demo_data_was_reset(
    workers: Workers, durable: redis.Redis
) -> None:
    workers.do("A:take")
    workers.do("A:write")
    durable.flushall()
    workers.do("B:take")
    assert workers.do("B:write") == "Worker B wrote the report."


# The lanes


def lanes(*entries: Entry, now_ms: int) -> list[holders.Lane]:
    return holders.picture(Journal(now_ms, entries)).lanes


def test_a_lease_is_drawn_from_its_start_to_its_end() -> None:
    took = Entry(40_000, "A", "took", 7, left_ms=10_000)
    [a, b] = lanes(took, now_ms=70_000)
    assert [(block.x, block.width) for block in a.blocks] == [(0, 120)]
    assert (a.state, b.state) == ("lease ended", "idle")


def test_a_lease_that_was_released_ends_there() -> None:
    took = Entry(40_000, "A", "took", 7, left_ms=10_000)
    [a, _] = lanes(took, Entry(45_000, "A", "released", 7), now_ms=70_000)
    assert [block.width for block in a.blocks] == [60]
    assert a.state == "idle"


def test_a_lease_that_was_extended_goes_on() -> None:
    took = Entry(40_000, "A", "took", 7, left_ms=10_000)
    longer = Entry(48_000, "A", "extended", 7, left_ms=10_000)
    [a, _] = lanes(took, longer, now_ms=70_000)
    assert [block.width for block in a.blocks] == [216]


def test_a_running_lease_is_drawn_up_to_now() -> None:
    took = Entry(65_000, "B", "took", 7, left_ms=10_000)
    [_, b] = lanes(took, now_ms=70_000)
    assert [(block.x, block.width) for block in b.blocks] == [(300, 60)]
    assert (b.tone, b.state) == ("ok", "holds it, 5 s left")


def test_a_lease_whose_key_was_deleted_ends_with_the_next_one() -> None:
    took = Entry(60_000, "A", "took", 7, left_ms=20_000)
    [a, b] = lanes(took, Entry(65_000, "B", "took", 8, left_ms=9_000), now_ms=70_000)
    assert [block.width for block in a.blocks] == [60]
    assert (a.state, b.state) == ("lease ended", "holds it, 4 s left")


@pytest.mark.parametrize(("wrote_ms", "number"), [(41_000, ""), (49_000, "…000000007")])
def test_a_mark_does_not_cross_the_number_of_its_lease(
    wrote_ms: int, number: str
) -> None:
    took = Entry(40_000, "A", "took", 7, left_ms=10_000)
    [a, _] = lanes(took, Entry(wrote_ms, "A", "wrote", 7), now_ms=52_000)
    assert [block.number for block in a.blocks] == [number]


def test_a_late_write_is_a_cross_with_its_number() -> None:
    [a, _] = lanes(Entry(55_000, "A", "refused", 7), now_ms=70_000)
    assert a.marks == [holders.Mark(180, "no", "…000000007")]


def test_what_is_older_than_half_a_minute_is_not_drawn() -> None:
    old = Entry(5_000, "A", "took", 7, left_ms=1_000), Entry(5_500, "A", "wrote", 7)
    [a, _] = lanes(*old, now_ms=70_000)
    assert (a.blocks, a.marks) == ([], [])


@pytest.fixture
def watched(app: Flask) -> Iterator[Outbox]:
    """What a browser with the page open is sent about the lanes."""
    hub: Hub = app.extensions["hub"]
    outbox = hub.admit({"locks"})
    assert outbox
    yield outbox
    hub.leave(outbox)


def frame_with(text: str, watched: Outbox) -> str:
    """The first of the next ten that has it; they come twice a second."""
    for _ in range(10):
        frame = (watched.get(timeout_s=10) or b"").decode(errors="replace")
        if text in frame:
            return frame
    raise AssertionError(f"no frame has {text!r}")


def test_what_another_browser_does_is_on_the_lanes_by_itself(
    watched: Outbox, workers: Workers
) -> None:
    assert "holds it" not in frame_with("idle", watched)
    workers.do("A:take")
    frame_with("holds it", watched)


def test_while_redis_is_away_the_lanes_say_as_of_when_they_are(
    watched: Outbox, workers: Workers, request: pytest.FixtureRequest
) -> None:
    workers.do("A:take")
    frame_with("holds it", watched)
    request.getfixturevalue("redis_down")
    assert "holds it" not in frame_with("<b>As of ", watched)


# The page


def test_the_page_is_there_before_anybody_did_anything(client: FlaskClient) -> None:
    page = client.get("/locks").text
    assert "Nightly report" in page
    assert "Nobody has written the report yet." in page


def test_without_scripts_an_act_answers_with_the_page(client: FlaskClient) -> None:
    page = client.post("/locks/report", data={"do": "A:take"}).text
    assert "<html" in page
    assert re.search(r'name="lease_A" value="[0-9a-f]{32}:[0-9]+:[0-9]{13}"', page)


def test_taking_is_one_round_trip_on_its_receipt(client: FlaskClient) -> None:
    text = client.post("/locks/report", data={"do": "A:take"}, headers=HTMX).text
    own = text.rpartition('<li class="receipt')[2]
    assert "<b>1</b> command, <b>1</b> round trip" in own
    assert "acquire" in own


@pytest.mark.parametrize("act", ["", "A", "A:", "C:take", "A:steal", "A:take:x"])
def test_what_is_no_act_is_400(client: FlaskClient, act: str) -> None:
    assert client.post("/locks/report", data={"do": act}).status_code == 400


@pytest.mark.parametrize("lease", ["x", "a" * 32, f"{'a' * 32}:0:1795385319442", "::"])
def test_what_is_no_lease_is_400(client: FlaskClient, lease: str) -> None:
    form = {"do": "A:write", "lease_A": lease}
    assert client.post("/locks/report", data=form).status_code == 400


def test_a_worker_without_a_lease_cannot_write(client: FlaskClient) -> None:
    assert client.post("/locks/report", data={"do": "A:write"}).status_code == 409


def test_the_keys_of_the_lock_are_shown(client: FlaskClient, workers: Workers) -> None:
    workers.do("A:take")
    part = client.get("/locks/keys", headers=HTMX).text
    assert re.findall(r'data-key="([^"]+)"', part) == [
        "rpl:locks:lock:{nightly-report}",
        "rpl:locks:fence:{nightly-report}",
        "rpl:locks:journal:{nightly-report}",
    ]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/report")])
def test_without_redis_nobody_gets_the_lock_and_the_page_is_503(
    client: FlaskClient, redis_down: None, method: str, path: str
) -> None:
    answer = client.open(f"/locks{path}", method=method, data={"do": "A:take"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "Traceback" not in answer.text


def test_why_the_page_is_away_is_seen_on_the_tape(
    client: FlaskClient, redis_down: None
) -> None:
    roll = client.get("/locks").text.partition('id="tape-roll"')[2]
    assert "Draw the lanes" in roll
    assert "data-housekeeping" not in roll


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_break_it_card_answers_with_its_result(
    client: FlaskClient, durable: redis.Redis, experiment: Any
) -> None:
    url = f"/locks/experiments/{experiment.name}"
    form = {control.name: str(control.min) for control in experiment.controls}
    part = client.post(url, headers=HTMX, data=form).text
    assert "xp__say" in part
    assert "pill--no" in part
    assert 'class="receipt is-new"' in part
    assert durable.keys("rpl:locks:lab*") == []


@pytest.mark.usefixtures("imitation")
def test_without_a_server_that_processes_reach_their_cards_are_not_there(
    client: FlaskClient,
) -> None:
    assert "Stop a holder" not in client.get("/locks").text
    assert client.post("/locks/experiments/stopped").status_code == 404
