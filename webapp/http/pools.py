"""Each worker tells how full its connection pools are, twice a second."""

import threading
import time

from webapp.connection.guarded import node_of
from webapp.connection.roles import Clients, pools_of
from webapp.http import metrics
from webapp.live.vitals import PoolNow

_EVERY_S = 0.5


def watch(clients: Clients) -> None:
    """Start telling; the thread ends with its worker."""

    def tell() -> None:
        told: dict[str, PoolNow] = {}
        while True:
            # Of a node that has left a Cluster nothing is left but zeros.
            gone = [PoolNow(node=n, in_use=0, idle=0, limit=0, waits=0) for n in told]
            told = {pool.node: pool for pool in (*gone, *sample(clients))}
            for pool in told.values():
                metrics.POOL.labels(pool.node, "in use").set(pool.in_use)
                metrics.POOL.labels(pool.node, "idle").set(pool.idle)
                metrics.POOL.labels(pool.node, "limit").set(pool.limit)
                metrics.POOL_WAITS.labels(pool.node).set(pool.waits)
            time.sleep(_EVERY_S)

    threading.Thread(target=tell, name="pools", daemon=True).start()


def sample(clients: Clients) -> list[PoolNow]:
    """This process's pools: the most that were in use since the last sample."""
    pools = [pool for _, client in clients.items() for pool in pools_of(client)]
    return [
        PoolNow(
            node=node_of(pool),
            in_use=(most := pool.most_in_use()),
            idle=max(0, pool.idle + pool.in_use - most),
            limit=pool.max_connections,
            waits=pool.waits,
        )
        for pool in pools
    ]
