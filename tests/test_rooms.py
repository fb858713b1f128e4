"""What holds for all rooms and pages, present and to come."""

import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from webapp import keys
from webapp.rooms import PAGES

ROOT = Path(__file__).parent.parent
ROOMS = [room for page in PAGES for room in page.rooms]
CARD = ("Keys", "Commands", "Guarantees", "Limits", "Source")


def files_of(room: str) -> list[Path]:
    """Its file, or those of its package: one module an algorithm."""
    folder = ROOT / "webapp/patterns" / room
    return sorted(folder.glob("[a-z]*.py")) or [folder.with_suffix(".py")]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_all_its_parts(room: str) -> None:
    assert all(file.is_file() for file in files_of(room))
    assert (ROOT / f"webapp/experiments/{room}.py").is_file()
    assert (ROOT / f"tests/patterns/test_{room}.py").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_begins_with_its_card(room: str) -> None:
    for file in files_of(room):
        card = file.read_text().split('"""')[1]
        places = [card.find(part) for part in CARD]
        assert -1 not in places, file
        assert places == sorted(places), file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_all_its_parts(page: object) -> None:
    name = page.name  # type: ignore[attr-defined]
    assert (ROOT / f"webapp/views/{name}.py").is_file()
    assert (ROOT / f"templates/{name}/show.html").is_file()
    assert (ROOT / f"tests/pages/test_{name}.py").is_file()
    assert (ROOT / f"tests/browser/test_{name}.py").is_file()


def test_every_pattern_and_lua_folder_belongs_to_a_room() -> None:
    patterns = {p.stem for p in (ROOT / "webapp/patterns").glob("[a-z]*")}
    folders = {p.name for p in (ROOT / "lua").iterdir()}
    assert patterns == set(ROOMS)
    assert folders <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_an_experiment_says_whether_it_is_replayed(room: str) -> None:
    for experiment in import_module(f"webapp.experiments.{room}").EXPERIMENTS:
        has_lanes = "lanes=" in inspect.getsource(experiment.run)
        assert has_lanes == experiment.replayed, experiment.name


def test_experiments_are_never_imported_by_patterns() -> None:
    for file in (ROOT / "webapp/patterns").rglob("*.py"):
        assert "experiments" not in file.read_text()


def test_only_settings_reads_the_environment() -> None:
    readers = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "webapp").rglob("*.py")
        if re.search(r"os\.(environ|getenv)", file.read_text())
    ]
    assert set(readers) <= {"webapp/settings.py", "webapp/launcher.py"}


def test_templates_hold_no_inline_script_style_or_handler() -> None:
    forbidden = re.compile(r"\sstyle=|<style|<script>|\son[a-z]+=|\|\s*safe\b|hx-on")
    for file in (ROOT / "templates").rglob("*.html"):
        assert not forbidden.search(file.read_text()), file


def test_scripts_build_no_html() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML\s*=|insertAdjacentHTML|eval\(|\.write\("
    )
    for file in (ROOT / "static").glob("*.js"):
        assert not forbidden.search(file.read_text()), file


def test_nothing_is_pickled() -> None:
    for file in (ROOT / "webapp").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) pickle", file.read_text(), re.M)


def test_readme_shows_the_key_registry() -> None:
    assert keys.table("rpl") in (ROOT / "README.md").read_text()


def test_lock_files_hold_hashes_and_no_url() -> None:
    for name in ("requirements.lock", "tests/requirements.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_python_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert re.search(r"^FROM python:3\.11", (ROOT / "Dockerfile").read_text(), re.M)
