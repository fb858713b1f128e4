"""Pools and clients that tell a breaker what failed, and the tape what was unsent."""

from queue import Empty
from typing import Any

import redis
from redis.client import Pipeline
from redis.connection import BlockingConnectionPool
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from webapp.connection import budget, recorder
from webapp.connection.breaker import Breaker, BreakerOpen


def _blames_the_server(error: Exception) -> bool:
    """False where only our pool was busy, or the request's own time was up."""
    ours = BreakerOpen, budget.BudgetSpent
    return not isinstance(error, ours) and not isinstance(error.__context__, Empty)


def note_failure(pool: Any, error: RedisError) -> None:
    """Open the pool's breaker, if it has one and the server is to blame."""
    breaker: Breaker | None = getattr(pool, "breaker", None)
    if breaker is not None and _blames_the_server(error):
        breaker.open(str(error))


class GuardedPool(BlockingConnectionPool):
    """Refuses at once while the breaker is open, and opens it when it must."""

    breaker: Breaker
    waits = 0  # how often all connections were in use, and somebody had to wait
    _most = 0

    @property
    def in_use(self) -> int:
        return int(self.max_connections - self.pool.qsize())

    @property
    def idle(self) -> int:
        """Connections that are open and free."""
        return sum(
            one is not None and one.is_connected for one in list(self.pool.queue)
        )

    def most_in_use(self) -> int:
        """At any moment since this was asked last."""
        now = self.in_use
        most, self._most = max(self._most, now), now
        return most

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        self.breaker.require_closed()
        self.waits += self.pool.empty()
        try:
            taken = super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]
            self._most = max(self._most, self.in_use)
            return taken
        except (ConnectionError, TimeoutError) as error:
            note_failure(self, error)
            raise


class GuardedClient(redis.Redis):
    """Tells the breaker of failures, and the tape of commands that were not sent."""

    @property
    def breaker(self) -> Breaker:
        pool: Any = self.connection_pool
        breaker: Breaker = pool.breaker
        return breaker

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except (ConnectionError, TimeoutError) as error:
            last = recorder.last_command()
            if last is None or last.args != args:
                recorder.note_unsent(node_of(self.connection_pool), args, error)
            note_failure(self.connection_pool, error)
            raise

    def pipeline(
        self, transaction: bool = True, shard_hint: str | None = None
    ) -> Pipeline:
        return GuardedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class GuardedPipeline(Pipeline):
    """The same for commands that are sent together."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        queued = [args for args, _ in self.command_stack]
        try:
            return super().execute(raise_on_error)
        except (ConnectionError, TimeoutError) as error:
            last = recorder.last_command()
            if last is None or last.error is None:
                for args in queued:
                    recorder.note_unsent(node_of(self.connection_pool), args, error)
            note_failure(self.connection_pool, error)
            raise


def node_of(pool: Any) -> str:
    """What the tape calls the server behind a pool."""
    return str(getattr(pool.connection_class, "node", ""))
