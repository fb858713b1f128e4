"""Settings: read once, checked, and explained when they cannot be used."""

import stat
from pathlib import Path

import pytest

from webapp.settings import SettingsError, from_environ


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    return {"INSTANCE_PATH": str(tmp_path / "instance")}


def test_without_any_url_both_servers_are_embedded_and_it_is_a_demo(
    base: dict[str, str],
) -> None:
    settings = from_environ(base)
    assert settings.embedded_roles == ("cache", "durable")
    assert all(url.startswith("unix://") for url in settings.redis_urls.values())
    assert settings.demo
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_one_url_serves_both_roles_and_is_no_demo(base: dict[str, str]) -> None:
    settings = from_environ(base | {"REDIS_URL": "redis://one:6379"})
    assert set(settings.redis_urls.values()) == {"redis://one:6379"}
    assert settings.embedded_roles == ()
    assert not settings.demo


def test_a_roles_own_url_wins(base: dict[str, str]) -> None:
    own = {"REDIS_URL": "redis://one:6379", "REDIS_CACHE_URL": "unix:///run/c.sock"}
    settings = from_environ(base | own)
    assert settings.redis_urls["cache"] == "unix:///run/c.sock"
    assert settings.redis_urls["durable"] == "redis://one:6379"


@pytest.mark.parametrize(
    "url",
    ["http://x", "redis+other://x", "x", "redis://host:port", "redis://h:99999",
     "redis+sentinel://h:1", "redis+cluster://h:port"],
)  # fmt: skip
def test_an_unusable_url_is_refused_without_its_password(
    base: dict[str, str], url: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        from_environ(base | {"REDIS_URL": url.replace("://", "://:geheim@")})
    assert "REDIS_URL" in str(refused.value)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "x"), ("PORT", "70000"), ("WORKERS", "0"), ("THREADS", "1"),
     ("NAMESPACE", "a:b"), ("NAMESPACE", "{x}"), ("SECRET_KEY", "short")],
)  # fmt: skip
def test_an_unusable_value_is_named(
    base: dict[str, str], name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        from_environ(base | {name: value})


def test_the_secret_key_is_made_once_and_kept_private(base: dict[str, str]) -> None:
    first, second = from_environ(base), from_environ(base)
    assert first.secret_key == second.secret_key
    assert len(first.secret_key) == 64
    file = first.instance_path / "secret_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_beyond_loopback_a_secret_key_must_be_given(base: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        from_environ(base | {"HOST": "0.0.0.0"})
    given = from_environ(base | {"HOST": "0.0.0.0", "SECRET_KEY": "k" * 32})
    assert given.secret_key == "k" * 32
    assert not given.demo


def test_a_secret_can_come_from_a_file(base: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-a-file-of-its-own\n")
    assert from_environ(base | {"SECRET_KEY_FILE": str(file)}).secret_key == (
        "from-a-file-of-its-own"
    )
    with pytest.raises(SettingsError, match="SECRET_KEY_FILE"):
        from_environ(base | {"SECRET_KEY_FILE": str(tmp_path / "none")})


def test_a_long_instance_path_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    settings = from_environ({"INSTANCE_PATH": str(long)})
    for url in settings.redis_urls.values():
        assert len(url.removeprefix("unix://")) <= 100


def test_settings_cannot_be_changed(base: dict[str, str]) -> None:
    with pytest.raises(AttributeError):
        from_environ(base).port = 1  # type: ignore[misc]


def test_every_setting_is_in_the_example_file() -> None:
    example = (Path(__file__).parent.parent / ".env.example").read_text()
    names = {
        "REDIS_URL", "REDIS_CACHE_URL", "REDIS_DURABLE_URL", "DATABASE_URL",
        "SECRET_KEY", "INSTANCE_PATH", "NAMESPACE", "ADMIN_PASSWORD", "DEMO",
        "TRUSTED_HOSTS", "TRUSTED_PROXIES", "HOST", "PORT", "WORKERS", "THREADS",
    }  # fmt: skip
    for name in names:
        assert f"{name}=" in example
