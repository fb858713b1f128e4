"""What a server can do, found out by trying: a version number does not tell.

Managed servers forbid commands, forks rename them. What is lacking is shown with the
reason the server gave, and the page goes on without it.
"""

import re
from dataclasses import dataclass

import redis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError


@dataclass(frozen=True)
class Feature:
    name: str
    needed_for: str
    attempt: tuple[str, ...]  # one harmless call


FEATURES: tuple[Feature, ...] = (
    Feature("Lua scripts", "every read through the cache", ("SCRIPT", "EXISTS", "0")),
    Feature("MEMORY USAGE", "the bytes of a key", ("MEMORY", "USAGE", "rpl:probe")),
    Feature("SCAN", "Reset demo data", ("SCAN", "0", "COUNT", "1")),
    Feature("UNLINK", "Reset demo data", ("UNLINK", "rpl:probe")),
)


def lacking(client: redis.Redis) -> list[str]:
    """What this server refuses, each with what it is needed for and why.

    Raises redis.ConnectionError or redis.TimeoutError if it does not answer.
    """
    refused = []
    for feature in FEATURES:
        try:
            client.execute_command(*feature.attempt)
        except (ConnectionError, TimeoutError):
            raise
        except ResponseError as error:
            refused.append(f"No {feature.name}, for {feature.needed_for}: {error}")
    return refused


# No server takes this policy, and the refusal lists those that it takes.
ASK_POLICIES = ("CONFIG SET", "maxmemory-policy", "?")
_POLICY = re.compile(r"\b(?:noeviction|(?:allkeys|volatile)-[a-z]+)\b")


def policies(client: redis.Redis) -> list[str]:
    """The eviction policies that this server accepts; empty: it does not tell.

    Raises redis.ConnectionError or redis.TimeoutError.
    """
    try:
        client.execute_command(*ASK_POLICIES)
    except (ConnectionError, TimeoutError):
        raise
    except ResponseError as error:
        return policies_in(str(error))
    return []


def policies_in(refusal: str) -> list[str]:
    return _POLICY.findall(refusal.partition("following:")[2])
