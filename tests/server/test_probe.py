"""What a server lacks is found out by trying, and said with its own words."""

from pathlib import Path

import pytest

from tests.conftest import RedisProcess
from webapp.connection.probe import lacking, policies
from webapp.connection.urls import probe_client
from webapp.live.servers import Probe

pytestmark = pytest.mark.server


def test_a_whole_server_lacks_nothing(redis_url: str) -> None:
    with probe_client(redis_url) as client:
        assert lacking(client) == []


@pytest.mark.one_server("it is started without a command")
def test_a_renamed_command_is_lacking_with_the_servers_reason(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, options=("--rename-command", "MEMORY", ""))
    server.start()
    try:
        with server.client() as client:
            (reason,) = lacking(client)
        assert reason.startswith("No MEMORY USAGE, for the bytes of a key: unknown")
        assert Probe("cache", server.url).ask().server.lacks == [reason]
    finally:
        server.kill()


@pytest.mark.one_server("a command is forbidden there")
def test_a_forbidden_command_is_lacking_too(redis_process: RedisProcess) -> None:
    with redis_process.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-unlink")
        (reason,) = lacking(client)
    assert "UNLINK" in reason
    assert "permissions" in reason


def test_a_server_tells_which_policies_it_accepts(redis_url: str) -> None:
    with probe_client(redis_url) as client:
        before = client.config_get("*")
        accepted = policies(client)
        assert client.config_get("*") == before
        assert len(accepted) >= 8
        for policy in [*accepted, before["maxmemory-policy"]]:
            client.config_set("maxmemory-policy", policy)


@pytest.mark.one_server("it is started without a command")
def test_a_server_without_config_tells_no_policies(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path, options=("--rename-command", "CONFIG", ""))
    server.start()
    try:
        with server.client() as client:
            assert policies(client) == []
    finally:
        server.kill()
