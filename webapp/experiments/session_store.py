"""Break the session store: four ways to get it wrong, each run beside the right one."""

import json
import time
from collections.abc import Mapping
from typing import Any

import redis

from webapp.experiments import (
    Bench,
    Control,
    Experiment,
    Lane,
    Outcome,
    Replay,
    Row,
    Run,
    Tone,
    compare,
    duration,
    running,
)
from webapp.patterns.session_store import SessionStore, digest, new_id

_TTL_S = 10
_IDLE_MS = 300  # of sessions whose end is waited for
_POLL_S = 0.025
_PLANTED = "planted"
_STORE = SessionStore(idle_ms=_TTL_S * 1000, absolute_ms=_TTL_S * 1000)
_SHORT = SessionStore(idle_ms=_IDLE_MS, absolute_ms=_IDLE_MS, refresh_ms=0)


# Adopt an id that somebody chose


def sign_in_under_the_same_id(client: redis.Redis, key: str) -> None:
    # Flaw: whoever sent the victim this id knows it too, and is the victim from now on.
    client.hset(key, mapping={"user": "alice"})
    client.expire(key, _TTL_S)


def sign_in_under_a_new_id(client: redis.Redis, run: Run) -> str:
    """The new id. The planted one was never anybody's, and stays nobody's."""
    session_id = new_id()
    _STORE.start(client, run.key(digest(session_id)), fields={"user": "alice"})
    return session_id


def run_fixation(bench: Bench) -> Outcome:
    with running(bench, "fixation") as run:
        adopting, adopted = _fixation_adopted(bench, run)
        refusing, refused = _fixation_refused(bench, run)
    return Outcome(
        rows=[
            Row("Planted id, kept at sign-in", _known(adopted), adopting.tone),
            Row("Planted id, new id at sign-in", _known(refused), refusing.tone),
        ],
        summary=f"With the planted id the attacker is {_known(adopted)}. "
        f"With a new id at sign-in: {_known(refused)}.",
        tone=adopting.tone,
        verdict="fixation" if adopted else "refused",
        recordings=run.recordings,
        lanes=[adopting, refusing],
    )


def _fixation_adopted(bench: Bench, run: Run) -> tuple[Lane, str | None]:
    client, replay = bench.client, Replay(run)
    key = run.key(_PLANTED)
    replay.step(
        "Attacker",
        "makes the victim's browser send an id, and the app adopts it",
        lambda: client.hset(key, mapping={"cart": "0"}),
    )
    replay.step(
        "Victim",
        "signs in, and keeps the id",
        lambda: sign_in_under_the_same_id(client, key),
        tone=lambda _: "no",
    )
    user = replay.step(
        "Attacker",
        "comes with the planted id",
        lambda: _hash(client, key).get("user"),
        shown=_known,
        tone=lambda user: "no" if user else "ok",
    )
    return replay.lane("The id stays"), user


def _fixation_refused(bench: Bench, run: Run) -> tuple[Lane, str | None]:
    client, replay = bench.client, Replay(run)
    key = run.key(f"{_PLANTED}-2")
    replay.step(
        "Attacker",
        "makes the victim's browser send an id, and the app does not know it",
        lambda: _load(client, key),
        shown=_session,
    )
    replay.step(
        "Victim",
        "signs in, and gets a new id",
        lambda: sign_in_under_a_new_id(client, run),
        shown=lambda session_id: f"new id {session_id[:6]}…",
    )
    fields = replay.step(
        "Attacker",
        "comes with the planted id",
        lambda: _load(client, key),
        shown=_session,
        tone=lambda fields: "no" if fields else "ok",
    )
    return replay.lane("A new id at sign-in"), fields.get("user")


# Two tabs write


def write_the_whole_session(
    client: redis.Redis, key: str, session: Mapping[str, str]
) -> None:
    # Race: both tabs read (1, 2), A writes its copy with the new cart (3), and B writes
    # its own copy with the new theme (4): the cart in it is the old one.
    client.hset(key, "session", json.dumps(dict(session)))


def run_lost_update(bench: Bench) -> Outcome:
    with running(bench, "update") as run:
        whole, left_whole = _update_whole(bench, run)
        single, left_single = _update_fields(bench, run)
    changes = {"cart": "1", "theme": "dark"}
    kept = [
        sum(left.get(field) == value for field, value in changes.items())
        for left in (left_whole, left_single)
    ]
    return Outcome(
        rows=[
            _kept_row("Whole value", kept[0], len(changes)),
            _kept_row("Field by field", kept[1], len(changes)),
        ],
        summary=f"{kept[0]} of {len(changes)} changes are left where each tab wrote "
        f"the whole session. Field by field: {kept[1]}.",
        tone="no" if kept[0] < len(changes) else "ok",
        verdict="lost update" if kept[0] < len(changes) else "kept",
        recordings=run.recordings,
        lanes=[whole, single],
    )


def _update_whole(bench: Bench, run: Run) -> tuple[Lane, dict[str, str]]:
    client, replay = bench.client, Replay(run)
    key = run.key("whole")

    def read() -> dict[str, str]:
        text: Any = client.hget(key, "session")
        found: dict[str, str] = json.loads(text)
        return found

    with run.recording("Set up"):
        write_the_whole_session(client, key, {"cart": "0", "theme": "light"})
        client.expire(key, _TTL_S)
    first = replay.step("Tab A", "reads the session", read, shown=_fields)
    second = replay.step("Tab B", "reads the session", read, shown=_fields)
    replay.step(
        "Tab A",
        "puts a thing into the cart",
        lambda: write_the_whole_session(client, key, first | {"cart": "1"}),
    )
    replay.step(
        "Tab B",
        "turns the theme dark",
        lambda: write_the_whole_session(client, key, second | {"theme": "dark"}),
        tone=lambda _: "no",
    )
    left = replay.step(
        "Anyone", "reads the session", read, shown=_fields, tone=_both_are_left
    )
    return replay.lane("Whole value"), left


def _update_fields(bench: Bench, run: Run) -> tuple[Lane, dict[str, str]]:
    client, replay = bench.client, Replay(run)
    key = run.key("fields")

    def read() -> dict[str, str]:
        return _load(client, key)

    with run.recording("Set up"):
        _STORE.start(client, key, fields={"cart": "0", "theme": "light"})
    replay.step("Tab A", "reads the session", read, shown=_fields)
    replay.step("Tab B", "reads the session", read, shown=_fields)
    replay.step(
        "Tab A",
        "puts a thing into the cart",
        lambda: _STORE.write(client, key, changes={"cart": "1"}),
        shown=_written,
    )
    replay.step(
        "Tab B",
        "turns the theme dark",
        lambda: _STORE.write(client, key, changes={"theme": "dark"}),
        shown=_written,
    )
    left = replay.step(
        "Anyone", "reads the session", read, shown=_fields, tone=_both_are_left
    )
    return replay.lane("Field by field"), left


# Sign out during a slow request


def save_at_the_end_of_the_request(client: redis.Redis, key: str) -> None:
    # Race: the request loaded the session (1), its user signed out and the key is
    # gone (2), and now this HSET makes it anew (3): without a TTL, and for good.
    client.hset(key, mapping={"user": "alice", "cart": "1"})


def run_undone_sign_out(bench: Bench) -> Outcome:
    with running(bench, "sign-out") as run:
        plain, revived = _sign_out_undone(bench, run)
        checked, stayed = _sign_out_kept(bench, run)
    return Outcome(
        rows=[
            Row("After the sign-out, HSET", _known(revived), plain.tone),
            Row("After the sign-out, checked write", _known(stayed), checked.tone),
        ],
        summary=f"After the sign-out the cookie is {_known(revived)} where the slow "
        f"request wrote with HSET. With the checked write: {_known(stayed)}.",
        tone=plain.tone,
        verdict="signed in again" if revived else "signed out",
        recordings=run.recordings,
        lanes=[plain, checked],
    )


def _sign_out_undone(bench: Bench, run: Run) -> tuple[Lane, str | None]:
    client, replay = bench.client, Replay(run)
    key = run.key("plain")
    with run.recording("Set up"):
        client.hset(key, mapping={"user": "alice", "cart": "0"})
        client.expire(key, _TTL_S)
    replay.step(
        "Slow request",
        "loads the session",
        lambda: _hash(client, key),
        shown=_session,
    )
    replay.step("User", "signs out", lambda: client.delete(key))
    replay.step(
        "Slow request",
        "saves what it has at its end",
        lambda: save_at_the_end_of_the_request(client, key),
        tone=lambda _: "no",
    )
    replay.step(
        "Anyone",
        "asks when the session ends",
        lambda: client.pttl(key),
        shown=_end,
        tone=lambda pttl: "no" if pttl == -1 else "ok",
    )
    user = replay.step(
        "Anyone",
        "comes with the old cookie",
        lambda: _hash(client, key).get("user"),
        shown=_known,
        tone=lambda user: "no" if user else "ok",
    )
    return replay.lane("HSET at the end"), user


def _sign_out_kept(bench: Bench, run: Run) -> tuple[Lane, str | None]:
    client, replay = bench.client, Replay(run)
    key = run.key("checked")
    with run.recording("Set up"):
        _STORE.start(client, key, fields={"user": "alice", "cart": "0"})
    replay.step(
        "Slow request",
        "loads the session",
        lambda: _load(client, key),
        shown=_session,
    )
    replay.step("User", "signs out", lambda: client.delete(key))
    replay.step(
        "Slow request",
        "wants to write the field it changed",
        lambda: _STORE.write(client, key, changes={"cart": "1"}),
        shown=_written,
        tone=lambda written: "no" if written else "wait",
    )
    replay.step(
        "Anyone",
        "asks when the session ends",
        lambda: client.pttl(key),
        shown=_end,
    )
    fields = replay.step(
        "Anyone",
        "comes with the old cookie",
        lambda: _load(client, key),
        shown=_session,
        tone=lambda fields: "no" if fields else "ok",
    )
    return replay.lane("Written if it exists"), fields.get("user")


# Forget the TTL


def start_and_forget(client: redis.Redis, key: str) -> None:
    # Flaw: HSET sets no TTL, and whatever should set it afterwards may never run.
    client.hset(key, mapping={"user": "alice", "cart": "0"})


def start_with_both_ends(client: redis.Redis, key: str) -> None:
    _SHORT.start(client, key, fields={"user": "alice", "cart": "0"})


def run_no_ttl(bench: Bench, *, sessions: int) -> Outcome:
    client = bench.client
    with running(bench, "no-ttl") as run:
        plain = [run.key(f"plain-{n}") for n in range(sessions)]
        ending = [run.key(f"ending-{n}") for n in range(sessions)]
        with run.recording(f"HSET {sessions} sessions") as forgot:
            for key in plain:
                start_and_forget(client, key)
        with run.recording(f"Start {sessions} sessions") as told:
            for key in ending:
                start_with_both_ends(client, key)
        with run.recording("Wait for the idle end"):
            waited_us = _until_gone(client, ending)
            kept, left = int(client.exists(*plain)), int(client.exists(*ending))
            pttl = int(client.pttl(plain[0]))
    forgot.verdict = ("no", _end(pttl))
    told.verdict = ("ok", f"{_IDLE_MS}\u00a0ms")
    return Outcome(
        rows=[
            Row("Its end, HSET", _end(pttl), "no"),
            *compare("Left", ("HSET", "start"), (kept, left), most=sessions),
        ],
        summary=f"{kept} of {sessions} abandoned sessions stay for ever. "
        f"{sessions - left} with a TTL are gone after {duration(waited_us)}.",
        tone="no" if kept else "ok",
        verdict="no expiry" if pttl == -1 else "ended",
        recordings=run.recordings,
    )


def _until_gone(client: redis.Redis, keys: list[str]) -> int:
    """The µs until none of the keys is left, 0.9 s at most."""
    began = time.perf_counter()
    while client.exists(*keys) and time.perf_counter() - began < 0.9:
        time.sleep(_POLL_S)
    return round((time.perf_counter() - began) * 1e6)


# What they share


def _hash(client: redis.Redis, key: str) -> dict[str, str]:
    found: Any = client.hgetall(key)
    return {name.decode(): value.decode() for name, value in found.items()}


def _load(client: redis.Redis, key: str) -> dict[str, str]:
    """Empty: there is no such session."""
    loaded = _STORE.load(client, key)
    found = loaded.fields if loaded else {}
    return {name: value.decode() for name, value in found.items()}


def _known(user: str | None) -> str:
    return f"signed in as {user}" if user else "nobody"


def _session(fields: Mapping[str, str]) -> str:
    return _fields(fields) if fields else "no such session"


def _fields(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {fields[name]}" for name in sorted(fields))


def _written(written: bool) -> str:
    return "1, written" if written else "0, refused"


def _end(pttl: int) -> str:
    return {-1: "no expiry", -2: "no such key"}.get(pttl, duration(max(pttl, 0) * 1000))


def _both_are_left(fields: Mapping[str, str]) -> Tone:
    kept = fields.get("cart") == "1" and fields.get("theme") == "dark"
    return "ok" if kept else "no"


def _kept_row(label: str, kept: int, of: int) -> Row:
    return Row(label, f"{kept} of {of}", "ok" if kept == of else "no", kept / of)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        name="fixation",
        title="Adopt a planted id",
        hypothesis="An attacker chooses the id before the victim signs in with it.",
        controls=(),
        run=run_fixation,
        replayed=True,
    ),
    Experiment(
        name="lost-update",
        title="Write from two tabs",
        hypothesis="The tab that writes last brings the other's old values back.",
        controls=(),
        run=run_lost_update,
        replayed=True,
    ),
    Experiment(
        name="undone-sign-out",
        title="Sign out during a slow request",
        hypothesis="The request saves its session at the end, and it is back.",
        controls=(),
        run=run_undone_sign_out,
        replayed=True,
    ),
    Experiment(
        name="no-ttl",
        title="Forget the TTL",
        hypothesis="A crash between HSET and EXPIRE leaves a session for ever.",
        controls=(
            Control("sessions", "Sessions", "range", min=5, max=40, step=5, value=20),
        ),
        run=run_no_ttl,
    ),
)
