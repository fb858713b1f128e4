"""The shop's feed: one subscription a process, for all its sockets.

It begins with the first socket that listens and ends with the last. One thread hears,
renders each event once, and lets newcomers catch up, so a socket gets every event in
order and once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import redis
from redis.exceptions import RedisError

from webapp import keys
from webapp.connection.urls import probe_client
from webapp.live.outbox import FeedNow, Message, Outbox, frame
from webapp.patterns import pub_sub
from webapp.patterns.pub_sub import Bad, Heard, Joined, Lost, PubSub, place
from webapp.settings import Settings

PATTERN = PubSub()
SHOWN = 50  # rows on the page, and rows that who was away gets at most

_LONGEST_TEXT = 300
_AFTER_ERROR_S = 1.0

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z-]{0,19}$")]  # "price"
    text: Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)]  # for people
    url: Annotated[str, msgspec.Meta(pattern="^(/[A-Za-z0-9_-]+)*$", max_length=99)] = (
        ""  # of this app; empty: nothing to open
    )


class Entry(msgspec.Struct, frozen=True):
    """An event as the page shows it."""

    id: str
    event: Event

    @property
    def clock(self) -> str:
        """When the server took it, in UTC: its id says so."""
        at = datetime.fromtimestamp(place(self.id)[0] / 1000, UTC)
        return at.strftime("%H:%M:%S")


def stream(namespace: str) -> str:
    return keys.key(namespace, keys.FEED, "shop")


def encode(event: Event) -> bytes:
    """Raises ValueError for an event that no listener would take."""
    payload = msgspec.json.encode(event)
    decode(payload)
    return payload


def decode(payload: bytes) -> Event:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(payload, type=Event)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error


def entries(messages: Sequence[pub_sub.Message[Event] | Bad]) -> list[Entry]:
    """Those that can be shown."""
    return [Entry(m.id, m.value) for m in messages if not isinstance(m, Bad)]


class Feed:
    """Who listens, and the thread that hears for them.

    `render` makes rows of entries, newest first. It runs in that thread, with neither
    an app context nor a request.
    """

    def __init__(
        self, settings: Settings, *, render: Callable[[Sequence[Entry]], str]
    ) -> None:
        self._url = settings.redis_urls["durable"]
        self._stream = stream(settings.namespace)
        self._render = render
        self._lock = threading.Lock()
        self._places: dict[Outbox, tuple[int, int]] = {}  # the last id each was given
        self._behind: set[Outbox] = set()  # who has still to catch up
        self._state: Literal["", "joined", "lost"] = ""  # empty: not known yet
        self._last = (0, 0)
        self._thread: threading.Thread | None = None

    def admit(self, outbox: Outbox, after: str | None) -> None:
        """Tell it what comes from now on, and first what came after an id."""
        with self._lock:
            at = self._places[outbox] = place(after) if after else self._last
            if after:
                self._behind.add(outbox)
            if self._state == "lost" or (self._state and not after):
                outbox.put(self._note(FeedNow(state=self._state), at=at))
            if self._thread is None:
                run = threading.Thread(target=self._run, name="feed", daemon=True)
                self._thread = run
                run.start()

    def leave(self, outbox: Outbox) -> None:
        with self._lock:
            self._places.pop(outbox, None)
            self._behind.discard(outbox)

    def _run(self) -> None:
        while not self._retires():
            try:
                self._hear()
            except Exception:  # whatever it is, the feed goes on
                log.exception("the feed is heard again after an error")
                time.sleep(_AFTER_ERROR_S)

    def _retires(self) -> bool:
        """Whether nobody listens; then this thread is no longer the feed's."""
        with self._lock:
            if not self._places:
                self._thread, self._state = None, ""
            return not self._places

    def _hear(self) -> None:
        """Until the last socket left."""
        with (
            closing(probe_client(self._url)) as client,
            closing(PATTERN.listen(client, self._stream, decode=decode)) as heard,
        ):
            for one in heard:
                if not self._places:
                    return
                self._take(one)
                self._catch_up(client)

    def _take(self, heard: Heard[Event]) -> None:
        if isinstance(heard, pub_sub.Message):
            self._tell(Entry(heard.id, heard.value))
        elif isinstance(heard, Bad):
            log.warning("an event that cannot be read: %s", heard.reason)
        elif isinstance(heard, Joined):
            self._change("joined", heard)
        elif isinstance(heard, Lost):
            if self._state != "lost":
                log.warning("the feed is lost: %s", heard.reason)
            self._change("lost")

    def _change(
        self, state: Literal["joined", "lost"], joined: Joined | None = None
    ) -> None:
        with self._lock:
            changed, self._state = self._state != state, state
            if joined:
                self._last = place(joined.after)
                now = FeedNow(state=state, missed=joined.missed, whole=joined.whole)
            else:
                now = FeedNow(state=state)
            if changed:
                note = self._note(now)
                for outbox in self._places.keys() - self._behind:
                    outbox.put(note)

    def _tell(self, entry: Entry) -> None:
        here = place(entry.id)
        told = FeedNow(state="told")
        html = self._html([entry])
        ready = frame(Message(topic="feed", id=entry.id, data=told, html=html))
        with self._lock:
            self._last = here
            for outbox, at in self._places.items():
                if at < here and outbox not in self._behind:
                    self._places[outbox] = here
                    outbox.put(ready)

    def _catch_up(self, client: redis.Redis) -> None:
        """Give newcomers what came since the id they named."""
        with self._lock:
            waiting = list(self._behind) if self._state == "joined" else []
        for outbox in waiting:
            try:
                self._resume(client, outbox)
            except RedisError:
                return  # the subscription will notice, and they are asked for again

    def _resume(self, client: redis.Redis, outbox: Outbox) -> None:
        at = self._places.get(outbox)
        if at is None:
            return  # it left
        after = f"{at[0]}-{at[1]}"
        replay = PATTERN.replay(client, self._stream, decode=decode, after=after)
        missed = entries(replay.messages)
        now = FeedNow(state="joined", missed=len(missed), whole=replay.whole)
        html = self._html(missed[: -SHOWN - 1 : -1]) if missed else None
        at = place(replay.messages[-1].id) if replay.messages else at
        with self._lock:
            self._behind.discard(outbox)
            if outbox in self._places:
                self._places[outbox] = at
                outbox.put(self._note(now, html, at))

    def _note(
        self,
        now: FeedNow,
        html: str | None = None,
        at: tuple[int, int] | None = None,
    ) -> bytes:
        ms, number = at or self._last
        return frame(Message(topic="feed", id=f"{ms}-{number}", data=now, html=html))

    def _html(self, rows: Sequence[Entry]) -> str | None:
        try:
            return self._render(rows)
        except Exception:  # one event that cannot be shown does not end the feed
            log.exception("an event cannot be rendered")
            return None
