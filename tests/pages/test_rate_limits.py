"""The throttled API, its headers and its report, and the lab, on fakeredis."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import wait_until
from webapp import create_app
from webapp.connection import urls
from webapp.connection.budget import limited_to
from webapp.experiments import limits_lab
from webapp.experiments.limits_lab import SHAPES, Answered, BadRun, Shape
from webapp.experiments.rate_limiter import EXPERIMENTS
from webapp.http import lanes, limiter
from webapp.settings import Settings
from webapp.views.throttled import _POLICIES

HTMX = {"HX-Request": "true"}
ALGORITHMS = ["fixed-window", "sliding-window-log"]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def ask(client: FlaskClient, algorithm: str, key: str = "alice") -> TestResponse:
    return client.get(f"/api/throttled/{algorithm}", headers={"X-API-Key": key})


def report(client: FlaskClient, algorithm: str, key: str = "alice") -> Any:
    return client.get(f"/api/throttled/{algorithm}/report?client={key}").json


# The contract


@each_algorithm
def test_a_hundred_pass_and_the_next_is_429(
    client: FlaskClient, algorithm: str
) -> None:
    statuses = [ask(client, algorithm).status_code for _ in range(103)]
    assert statuses == [200] * 100 + [429] * 3


@each_algorithm
def test_an_admitted_request_has_the_documented_shape(
    client: FlaskClient, algorithm: str
) -> None:
    body = ask(client, algorithm).json
    assert 59_000 < body.pop("reset_after_ms") <= 60_000
    assert body == {"algorithm": algorithm, "allowed": True, "remaining": 99}


@each_algorithm
def test_a_rejected_request_is_a_quota_problem(
    client: FlaskClient, algorithm: str
) -> None:
    answer = [ask(client, algorithm) for _ in range(101)][-1]
    assert answer.content_type == "application/problem+json"
    body = msgspec.json.decode(answer.data)
    assert 50_000 < body.pop("retry_after_ms") <= 60_000
    assert body == {
        "type": QUOTA,
        "title": "Quota exceeded",
        "status": 429,
        "detail": "100 requests in 60 s are allowed.",
        "instance": f"/api/throttled/{algorithm}",
        "violated-policies": [algorithm],
    }


_ITEM = r'"[a-z-]+"'
_POLICY = re.compile(rf"{_ITEM};q=([0-9]+);w=([0-9]+)")
_LIMIT = re.compile(rf"{_ITEM};r=([0-9]+);t=([0-9]+)")


@each_algorithm
def test_every_answer_carries_the_ietf_fields(
    client: FlaskClient, algorithm: str
) -> None:
    """F7 with 130 answers of each; all 5,000 in the next test."""
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for n in range(130):
            answer = ask(client, algorithm)
            headers = answer.headers
            policy = _POLICY.fullmatch(headers["RateLimit-Policy"])
            limit = _LIMIT.fullmatch(headers["RateLimit"])
            assert policy
            assert limit
            assert policy.groups() == ("100", "60")
            assert headers["Cache-Control"] == "no-store"
            remaining, reset_s = map(int, limit.groups())
            assert 1 <= reset_s <= 60
            if n < 100:
                assert (answer.status_code, remaining) == (200, 99 - n)
                assert "Retry-After" not in headers
            else:
                assert (answer.status_code, remaining) == (429, 0)
                assert 1 <= int(headers["Retry-After"]) <= reset_s
            clock.shift(0.3)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [250, pytest.param(2500, marks=pytest.mark.slow)])
@each_algorithm
def test_the_fields_are_valid_whatever_the_traffic(
    client: FlaskClient, algorithm: str, count: int
) -> None:
    """F7 with 250 answers of each algorithm; all 5,000 in `make test-all`."""
    random, statuses = Random(7), Counter[int]()
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(count):
            clock.shift(random.choice((0, 0, 0, 0.001, 0.1, 0.999)))
            answer = ask(client, algorithm)
            headers = answer.headers
            statuses[answer.status_code] += 1
            assert headers["Cache-Control"] == "no-store"
            policy = _POLICY.fullmatch(headers["RateLimit-Policy"])
            limit = _LIMIT.fullmatch(headers["RateLimit"])
            assert policy
            assert limit
            assert int(limit[1]) <= int(policy[1])
            if answer.status_code == 429:
                assert answer.mimetype == "application/problem+json"
                assert int(headers["Retry-After"]) >= max(1, int(limit[2]))
            else:
                assert "Retry-After" not in headers
    assert set(statuses) == {200, 429}
    assert min(statuses.values()) > count // 5


@each_algorithm
def test_retry_after_is_never_early(client: FlaskClient, algorithm: str) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(100):
            ask(client, algorithm)
            clock.shift(0.333)
        refused = ask(client, algorithm)
        assert refused.status_code == 429
        clock.shift(int(refused.headers["Retry-After"]))
        assert ask(client, algorithm).status_code == 200


def test_the_baseline_has_no_limiter(client: FlaskClient) -> None:
    for _ in range(105):
        answer = client.get("/api/unthrottled")
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers
    assert list(answer.json) == ["algorithm", "allowed", "remaining", "reset_after_ms"]


def test_an_unknown_algorithm_is_404(client: FlaskClient) -> None:
    for path in ("gcra", "gcra/report?client=a", "fixed_window"):
        assert client.get(f"/api/throttled/{path}").status_code == 404


# Who is asking


@pytest.mark.parametrize("key", ["", "a b", "a:b", "{a}", "-a", "a" * 65, "ip-1-2-3-4"])
def test_a_bad_api_key_is_400(client: FlaskClient, key: str) -> None:
    assert ask(client, "fixed-window", key).status_code == 400


def test_api_keys_have_limits_of_their_own(client: FlaskClient) -> None:
    for _ in range(100):
        ask(client, "fixed-window", "alice")
    assert ask(client, "fixed-window", "alice").status_code == 429
    assert ask(client, "fixed-window", "bob").status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_forged_address_is_not_believed(client: FlaskClient, header: str) -> None:
    """F4 on the throttled API, with 120 requests; test_sessions has the sign-ins."""
    passed = 0
    for n in range(120):
        forged = f"for=10.0.{n}.1" if header == "Forwarded" else f"10.0.{n}.1"
        answer = client.get("/api/throttled/fixed-window", headers={header: forged})
        passed += answer.status_code == 200
    assert passed == 100


@pytest.fixture
def behind_a_proxy(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(msgspec.structs.replace(settings, trusted_proxies=1))
    yield app.test_client()
    app.extensions["clients"].close()
    app.extensions["catalog"].engine.dispose()


def test_a_trusted_proxy_is_believed_only_in_what_it_added(
    behind_a_proxy: FlaskClient,
) -> None:
    for n in range(100):
        forged = {"X-Forwarded-For": f"10.0.{n}.1, 192.0.2.7"}
        behind_a_proxy.get("/api/throttled/fixed-window", headers=forged)
    last = {"X-Forwarded-For": "10.9.9.9, 192.0.2.7"}
    answer = behind_a_proxy.get("/api/throttled/fixed-window", headers=last)
    assert answer.status_code == 429
    other = {"X-Forwarded-For": "10.9.9.9, 192.0.2.8"}
    answer = behind_a_proxy.get("/api/throttled/fixed-window", headers=other)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("address", "client_id"),
    [
        ("127.0.0.1", "ip-127-0-0-1"),
        ("::ffff:10.1.2.3", "ip-10-1-2-3"),
        ("2001:db8::1", "ip-20010db800000000"),
        ("2001:db8::ffff:1", "ip-20010db800000000"),
        ("fe80::1%eth0", "ip-fe80000000000000"),
        ("not an address", "ip-unknown"),
        (None, "ip-unknown"),
    ],
)
def test_an_address_has_a_name(address: str | None, client_id: str) -> None:
    assert limiter.address_id(address) == client_id


# The report


@each_algorithm
def test_the_report_says_what_was_admitted_and_rejected(
    client: FlaskClient, algorithm: str
) -> None:
    for _ in range(107):
        ask(client, algorithm)
    ask(client, algorithm, "bob")
    assert report(client, algorithm) == {
        "algorithm": algorithm,
        "limit": 100,
        "window_ms": 60_000,
        "admitted": 100,
        "rejected": 7,
        "clients": [{"client": "alice", "admitted": 100, "rejected": 7}],
    }


@each_algorithm
def test_a_report_outlives_the_window(client: FlaskClient, algorithm: str) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        for _ in range(110):
            ask(client, algorithm)
        clock.shift(61)
        for _ in range(110):
            ask(client, algorithm)
        said = report(client, algorithm)
        assert (said["admitted"], said["rejected"]) == (200, 20)


@each_algorithm
def test_a_reset_empties_the_report_and_not_the_window(
    client: FlaskClient, algorithm: str
) -> None:
    for _ in range(100):
        ask(client, algorithm)
    cleared = client.delete(f"/api/throttled/{algorithm}/report?client=alice")
    assert (cleared.json["admitted"], cleared.json["rejected"]) == (0, 0)
    assert ask(client, algorithm).status_code == 429
    assert report(client, algorithm)["rejected"] == 1


@pytest.mark.parametrize("query", ["", "?client=", "?client=a:b"])
def test_a_report_is_of_one_named_client(client: FlaskClient, query: str) -> None:
    path = f"/api/throttled/fixed-window/report{query}"
    assert client.get(path).status_code == 400
    assert client.delete(path).status_code == 400


@each_algorithm
def test_an_admin_gets_the_report_of_all_clients(
    client: FlaskClient, admin: FlaskClient, algorithm: str
) -> None:
    for key in ("bob", "alice", "alice"):
        ask(client, algorithm, key)
    path = f"/api/throttled/{algorithm}/report"
    said = admin.get(path).json
    assert (said["admitted"], said["rejected"]) == (3, 0)
    assert said["clients"] == [
        {"client": "alice", "admitted": 2, "rejected": 0},
        {"client": "bob", "admitted": 1, "rejected": 0},
    ]
    assert admin.delete(path).status_code == 400


# Redis away


@each_algorithm
def test_without_redis_each_process_limits_with_its_share(
    settings: Settings, algorithm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F3 with one process of two and 120 requests, where 1,000 logins are asked."""
    app = create_app(msgspec.structs.replace(settings, workers=2))
    client = app.test_client()
    fake = urls.fake_server(settings.redis_urls["durable"])
    try:
        fake.connected = False
        answers = [ask(client, algorithm) for _ in range(120)]
        assert [a.status_code for a in answers] == [200] * 50 + [429] * 70
        assert {a.headers["X-RateLimit-Mode"] for a in answers} == {"degraded"}
        assert answers[0].headers["RateLimit-Policy"] == f'"{algorithm}";q=50;w=60'
        assert answers[-1].headers["Retry-After"] == "60"
        logged = [r for r in caplog.records if "each process" in r.message]
        assert len(logged) == 1
        fake.connected = True
        wait_until(lambda: "X-RateLimit-Mode" not in ask(client, algorithm).headers)
    finally:
        fake.connected = True
        app.extensions["clients"].close()
        app.extensions["catalog"].engine.dispose()


def test_a_poisoned_key_is_no_free_pass(app: Flask, client: FlaskClient) -> None:
    durable = app.extensions["clients"].durable
    durable.hset("rpl:rate-limits:fixed-window:{alice}", "field", "value")
    statuses = [ask(client, "fixed-window").status_code for _ in range(103)]
    assert statuses == [200] * 100 + [429] * 3


def test_a_process_that_was_slow_asks_redis_all_the_same(app: Flask) -> None:
    own: limiter.Limiter = app.extensions["limiter"]
    policy = _POLICIES["fixed-window"]
    own.decide(policy, "alice")
    with limited_to(0):
        decision, degraded = own.decide(policy, "alice")
    assert (decision.remaining, degraded) == (98, False)


def test_a_process_remembers_a_bounded_number_of_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiter, "_MOST_CLIENTS", 10)
    fallback, policy = limiter.Fallback(workers=1), _POLICIES["fixed-window"]
    passed = [fallback.decide(policy, f"client-{n}").allowed for n in range(500)]
    assert len(fallback._windows) == 11
    assert sum(passed) == 110


def test_the_report_without_redis_is_503(client: FlaskClient, redis_down: None) -> None:
    answer = client.get("/api/throttled/fixed-window/report?client=alice")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_the_page_without_redis_says_so(client: FlaskClient, redis_down: None) -> None:
    page = client.get("/rate-limits?run=3f09ab-20-2000")
    assert page.status_code == 200
    assert "The run cannot be shown." in page.text
    sent = client.post("/rate-limits/requests", data={"limit": "5"}, headers=HTMX)
    assert sent.status_code == 503
    assert "Traceback" not in sent.text


# The lab


def run_of(answer: TestResponse) -> str:
    found = re.search(r'name="run" value="([^"]+)"', answer.text)
    assert found
    return found[1]


def test_an_empty_lab_says_how_to_fill_it(client: FlaskClient) -> None:
    assert "Nothing sent yet" in client.get("/rate-limits").text


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_is_short_and_in_order(client: FlaskClient, shape: str) -> None:
    for limit, window_ms in ((5, 1000), (40, 2000)):
        query = f"limit={limit}&window_ms={window_ms}&shape={shape}"
        at_ms = client.get(f"/rate-limits/plan?{query}").json["at_ms"]
        assert at_ms == sorted(at_ms)
        assert limit < len(at_ms) < 200
        assert at_ms[0] > 0
        assert at_ms[-1] <= 6_000


def test_an_edge_plan_puts_the_limit_before_and_after_the_end() -> None:
    run = limits_lab.new_run(20, 2_000)
    at_ms = limits_lab.plan("edge", run)
    before = [at for at in at_ms if 1_000 < at < 2_000]
    after = [at for at in at_ms if 2_000 < at < 3_000]
    assert (len(before), len(after)) == (20, 20)
    assert after[-1] - before[0] < 2_000


@pytest.mark.parametrize(
    "query",
    ["limit=7", "limit=45", "limit=x", "window_ms=1250", "window_ms=9", "shape=wild"],
)
def test_a_plan_refuses_what_is_out_of_bounds(client: FlaskClient, query: str) -> None:
    assert client.get(f"/rate-limits/plan?{query}").status_code == 400


def test_a_request_is_put_to_both_and_is_on_the_tape(client: FlaskClient) -> None:
    answer = client.post("/rate-limits/requests", data={"limit": "5"}, headers=HTMX)
    assert "<html" not in answer.text
    cli = html.unescape("".join(re.findall(r'data-cli="([^"]*)"', answer.text)))
    verbs = [line.split()[0] for line in cli.splitlines()]
    fixed = ["MULTI", "INCRBY", "PEXPIRE", "PTTL", "EXEC"]
    assert verbs == [*fixed, "EVALSHA", "MULTI", "XADD", "PEXPIRE", "EXEC"]


def test_a_run_goes_on_and_its_lanes_count(client: FlaskClient) -> None:
    first = client.post("/rate-limits/requests", data={"limit": "5"}, headers=HTMX)
    run = run_of(first)
    again = {"run": run, "burst": "1"}
    for _ in range(2):
        client.post("/rate-limits/requests", data=again, headers=HTMX)
    text = client.get(f"/rate-limits/lanes?run={run}", headers=HTMX).text
    told = "5 admitted, 6 rejected, at most 5 in any 2 seconds, limit 5"
    assert f"Fixed window: {told}" in text
    assert f"Sliding window log: {told}" in text


def test_without_htmx_a_request_leads_back_to_its_run(client: FlaskClient) -> None:
    sent = client.post("/rate-limits/requests", data={"limit": "10", "burst": "1"})
    assert sent.status_code == 303
    page = client.get(sent.location).text
    assert "10 admitted, 0 rejected" in page


def test_the_keys_of_a_run_are_shown_with_their_ttls(client: FlaskClient) -> None:
    run = run_of(client.post("/rate-limits/requests", headers=HTMX))
    text = client.get(f"/rate-limits/keys?run={run}", headers=HTMX).text
    assert text.count("data-ttl-ms") == 3
    assert "data-housekeeping" in text


def test_the_lab_never_touches_the_api_limit(client: FlaskClient) -> None:
    client.post("/rate-limits/requests", data={"limit": "5", "burst": "1"})
    answer = client.get("/api/throttled/fixed-window")
    assert answer.headers["RateLimit-Policy"] == '"fixed-window";q=100;w=60'
    assert answer.json["remaining"] == 99


@pytest.mark.parametrize(
    "name", ["x", "3f09ab-21-2000", "3f09ab-20-2001", "3f09ab-99-9999", "{a}-20-2000"]
)
def test_a_run_that_cannot_be_is_400(client: FlaskClient, name: str) -> None:
    with pytest.raises(BadRun):
        limits_lab.parse_run(name)
    assert client.get("/rate-limits", query_string={"run": name}).status_code == 400


# The picture


RUN = limits_lab.parse_run("3f09ab-20-2000")


def simulated(shape: Shape) -> list[Answered]:
    """The plan as both algorithms would answer it without any delay."""
    asked, log, answers = [0, *limits_lab.plan(shape, RUN)], [], []
    until, count = -1, 0
    for at in asked:
        if at > until:
            until, count = at + RUN.window_ms, 0
        count += 1
        log = [t for t in log if t > at - RUN.window_ms]
        passes = len(log) < RUN.limit
        log += [at] * passes
        answers.append(Answered(at, count <= RUN.limit, passes))
    return answers


def test_the_edge_is_seen_in_the_fixed_window_only() -> None:
    fixed, log = lanes.picture(RUN, simulated("edge")).lanes
    assert (fixed.most, log.most) == (39, 20)
    assert fixed.over
    assert not log.over
    assert fixed.is_over
    assert not log.is_over


@pytest.mark.parametrize("shape", SHAPES)
def test_each_request_is_one_mark_in_each_lane(shape: Shape) -> None:
    answers = simulated(shape)
    for lane in lanes.picture(RUN, answers).lanes:
        assert lane.admitted + lane.rejected == len(answers)
        assert len(lane.passed) == lane.admitted
        assert lane.refused.count("M") == lane.rejected


@pytest.mark.parametrize("shape", SHAPES)
def test_the_marks_and_curves_stay_inside_their_lane(shape: Shape) -> None:
    for lane in lanes.picture(RUN, simulated(shape)).lanes:
        assert all(0 <= m.x <= 600 and 40 < m.y <= 80 for m in lane.passed)
        numbers = [float(n) for n in re.findall(r"[HV](-?[\d.]+)", lane.curve)]
        assert all(0 <= n <= 600 for n in numbers)


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([5], 1), ([0, 9, 10], 2), ([0, 0, 9, 10, 11], 3), ([0, 20, 40], 1)],
)
def test_the_most_in_any_window_is_counted(times: list[int], most: int) -> None:
    assert limits_lab.most_within(times, 10) == most


# Break it


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_break_it_runs_and_leaves_receipts(
    client: FlaskClient, experiment: Any
) -> None:
    path = f"/rate-limits/experiments/{experiment.name}"
    answer = client.post(path, headers=HTMX)
    assert answer.status_code == 200
    assert 'class="receipt is-new"' in answer.text
    assert "not run yet" not in answer.text
    assert client.post(path).status_code == 200


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_break_it_refuses_controls_out_of_bounds(
    client: FlaskClient, experiment: Any
) -> None:
    path = f"/rate-limits/experiments/{experiment.name}"
    for control in experiment.controls:
        answer = client.post(path, data={control.name: "999"}, headers=HTMX)
        assert answer.status_code == 400


def test_the_tile_counts_what_was_said(client: FlaskClient) -> None:
    def counted(event: str) -> float:
        found = re.search(
            rf'rpl_events_total{{event="{event}",page="rate_limits"}} ([\d.e+]+)',
            client.get("/metrics").text,
        )
        return float(found[1]) if found else 0.0

    before = counted("admitted"), counted("rejected")
    for _ in range(101):
        ask(client, "fixed-window")
    assert (counted("admitted") - before[0], counted("rejected") - before[1]) == (
        100,
        1,
    )
