"""One worker: reads, handles, acknowledges, and takes over what others left.

It runs in the main thread of a process of its own, because a job that hangs is ended
by an alarm. Told to stop, it stops reading; what it has begun and cannot finish in
time stays pending, and another takes it over.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.connection import recorder
from webapp.connection.recorder import Recording
from webapp.patterns.streams.consumer_group import FIRST, ConsumerGroup, Delivery
from webapp.shop.orders import LETTERS, STREAM, Orders
from webapp.shop.pace import Pace
from webapp.workers import alarm
from webapp.workers.jobs import Job

_JOB_S = 4.8  # that one may take: less than the shortest time to reclaim
_LAST_JOB_S = 4.0  # once the worker is told to stop
_CHORES_S = 1.0
_NAP_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between two tries without Redis
_FORGOTTEN_MS = 10 * 60_000  # a consumer that was silent for so long has ended

# What the tape says of a delivery, the worst last.
_VERDICTS = {
    "done": ("ok", "acked"),
    "claimed": ("wait", "claimed"),
    "late": ("wait", "too late"),
    "failed": ("wait", "failed"),
    "dead": ("no", "dead letter"),
}

log = logging.getLogger(__name__)


class Stopping(Exception):
    """The worker was told to stop in the middle of a job: it stays pending."""


class Worker:
    """`pace` is asked once a second; `count` is told what became of each delivery.

    `note` gets what was said to Redis for them, with a cause and a verdict.
    """

    def __init__(
        self,
        orders: Orders,
        job: Job,
        name: str,
        *,
        pace: Callable[[], Pace],
        count: Callable[[str], None] = lambda event: None,
        note: Callable[[Recording], None] = lambda own: None,
    ) -> None:
        self._orders = orders
        self._client = orders.client
        self._job = job
        self._name = name
        self._read_pace = pace
        self._count = count
        self._note = note
        self._became: set[str] = set()
        self._pace = Pace()
        self._group = ConsumerGroup()
        self._chores_at = 0.0
        self._cursor = FIRST
        self._is_claiming = False
        self._stopping = False
        self._trouble = ""

    def stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Read no more. A signal handler may call it, in the middle of anything."""
        self._stopping = True
        alarm.hurry(_LAST_JOB_S)

    def run(self) -> None:
        """Work until `stop`, also across outages of Redis."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping:
            try:
                self.begin()
                while not self._stopping:
                    self.turn()
                    pause_s, self._trouble = _FIRST_PAUSE_S, ""
            except RedisError as error:
                self._complain(error)
                self._wait(pause_s * random.uniform(0.7, 1.3))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self._leave()

    def begin(self) -> None:
        """Join the group, and go on with what this worker had before it ended."""
        self._look()
        self._orders.join(self._group)
        taken = self._group.resume(
            self._client,
            self._orders.stream,
            group=self._job.group,
            consumer=self._name,
        )
        self._tell("gone", taken.gone)
        self._handle_all(taken.deliveries)

    def turn(self) -> None:
        """Read once and handle what came, and now and then what others left."""
        if time.monotonic() >= self._chores_at:
            self._do_chores()
        if self._is_claiming:
            self._claim()
        with self._noting() as own:
            found = self._group.read(
                self._client,
                self._orders.stream,
                group=self._job.group,
                consumer=self._name,
                count=self._job.batch,
            )
            own.cause = f"{self._name} handles {_numbers(found)}" if found else ""
            self._handle_all(found)
        if found and self._job.rest_ms:
            self._wait(self._job.rest_ms / 1000)

    def _do_chores(self) -> None:
        self._chores_at = time.monotonic() + _CHORES_S
        self._look()
        STREAM.trim(self._client, self._orders.stream)
        self._forget_ended()
        self._is_claiming = True

    def _claim(self) -> None:
        """Take over no more than is handled in time; the next turn goes on from there.

        What waits in a worker's hands for long would be claimed from it in turn.
        """
        with self._noting() as own:
            taken = self._group.claim(
                self._client,
                self._orders.stream,
                group=self._job.group,
                consumer=self._name,
                cursor=self._cursor,
                count=self._job.batch,
            )
            self._cursor = taken.cursor
            self._is_claiming = taken.cursor != FIRST
            self._tell("gone", taken.gone)
            self._tell("claimed", len(taken.deliveries))
            with recorder.unrecorded():  # it is for the page alone
                self._orders.note_claims(self._name, taken.deliveries)
            if taken.deliveries:
                own.cause = f"{self._name} claims {_numbers(taken.deliveries)}"
            self._handle_all(taken.deliveries)

    def _look(self) -> None:
        self._pace = self._read_pace()
        self._group = ConsumerGroup(idle_ms=self._pace.reclaim_ms)

    def _handle_all(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if not self._stopping:
                self._handle(delivery)

    def _handle(self, delivery: Delivery) -> None:
        if LETTERS.is_spent(delivery):
            self._bury(delivery, "handed out too often, and never acknowledged")
            return
        began = time.monotonic()
        try:
            with alarm.at_most(_JOB_S):
                add = self._job.do(delivery, self._pace, self._work)
        except Stopping:
            return
        except Exception as error:  # whatever an entry does to us, the next one comes
            self._fail(delivery, error)
            return
        took_ms = round((time.monotonic() - began) * 1000)
        done = self._group.finish(
            self._client,
            self._orders.stream,
            delivery,
            group=self._job.group,
            outcome=self._orders.outcome(self._job.group, delivery.origin),
            totals=self._orders.totals(self._job.group),
            text=f"{self._name} {took_ms} {delivery.deliveries}",
            add=add,
        )
        self._tell("done" if done else "late")

    def _fail(self, delivery: Delivery, error: Exception) -> None:
        """Leave it pending, for another try; after the last one, bury it."""
        self._tell("failed")
        if LETTERS.is_last(delivery):
            self._bury(delivery, f"{type(error).__name__}: {error}"[:200])

    def _bury(self, delivery: Delivery, reason: str) -> None:
        if self._orders.bury(delivery, group=self._job.group, reason=reason):
            self._tell("dead")

    def _work(self, ms: int) -> None:
        """Take so long, as a bill would. Raises Stopping."""
        self._wait(ms / 1000)
        if self._stopping:
            raise Stopping

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, _NAP_S))

    def _forget_ended(self) -> None:
        """Remove consumers that were silent for long, with nothing pending."""
        stream, group = self._orders.stream, self._job.group
        for consumer in self._client.xinfo_consumers(stream, group):
            if consumer["idle"] > _FORGOTTEN_MS and not consumer["pending"]:
                name = consumer["name"]
                self._group.leave(self._client, stream, group=group, consumer=name)

    def _leave(self) -> None:
        try:
            self._group.leave(
                self._client,
                self._orders.stream,
                group=self._job.group,
                consumer=self._name,
            )
        except RedisError as error:  # its name stays, until another forgets it
            self._complain(error)

    def _tell(self, event: str, times: int = 1) -> None:
        for _ in range(times):
            self._became.add(event)
            self._count(event)

    @contextmanager
    def _noting(self) -> Iterator[Recording]:
        """Note what was said to Redis in the block, if it gives that a cause."""
        self._became.clear()
        with recorder.recording(Recording("")) as own:
            yield own
        if own.cause:
            worst = [said for event, said in _VERDICTS.items() if event in self._became]
            own.verdict = own.verdict or (worst[-1] if worst else None)
            self._note(own)

    def _complain(self, error: redis.RedisError) -> None:
        """Once for the same trouble; NOGROUP is none: the next try makes the group."""
        is_reset = isinstance(error, ResponseError) and "NOGROUP" in str(error)
        if not is_reset and str(error) != self._trouble:
            self._trouble = str(error)
            log.warning("%s waits for Redis: %s", self._name, error)


def _numbers(deliveries: list[Delivery]) -> str:
    first, more = deliveries[0].number or deliveries[0].id, len(deliveries) - 1
    return f"order {first} and {more} more" if more else f"order {first}"
