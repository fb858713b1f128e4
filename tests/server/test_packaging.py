"""What is shipped: the wheel, the image, the compose file, the example settings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.server.test_launcher import running
from webapp.connection import embedded

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, far from the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_the_wheel_carries_templates_static_files_and_scripts(installed: Path) -> None:
    for name in ("templates", "static", "lua"):
        shipped = installed / "webapp" / "_data" / name
        assert names_in(shipped) == names_in(ROOT / name)


def names_in(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def test_a_plain_install_serves_its_own_files(installed: Path, instance: Path) -> None:
    with running(instance, cwd=installed.parent, PYTHONPATH=str(installed)) as app:
        status, page = app.get("/")
        assert status == 200
        assert all(
            app.get(path)[0] == 200 for path in re.findall(r'"(/static/[^"]+)"', page)
        )
        assert app.get("/api/products/1042")[0] == 200


def test_the_image_has_the_oldest_python_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = re.search(
        r"^FROM python:([\d.]+)-slim$", (ROOT / "Dockerfile").read_text(), re.M
    )
    assert image is not None
    assert project["requires-python"] == f">={image[1]}"


@pytest.mark.parametrize("role", ["cache", "durable"])
def test_compose_sets_up_redis_as_the_app_does(role: str) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    command = services[role]["command"].removeprefix("redis-server --").split(" --")
    assert {part.strip() for part in command} == set(embedded.SETTINGS[role])


def test_the_example_names_every_setting() -> None:
    read = re.findall(
        r'environ(?:\.get\(|, )"([A-Z_]+)"', (ROOT / "webapp/settings.py").read_text()
    )
    named = re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)
    assert sorted(named) == sorted(set(read) - {"XDG_STATE_HOME"})


def test_locks_hold_hashes_and_no_address() -> None:
    for name in ("requirements.lock", "tests/requirements.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
