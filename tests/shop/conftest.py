import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from webapp.shop.database import open_database


@pytest.fixture(scope="session")
def shop(seeded: Path) -> Iterator[Engine]:
    """The seeded shop, shared by all tests: read only."""
    engine = open_database(f"sqlite:///{seeded}")
    yield engine
    engine.dispose()


@pytest.fixture
def url(seeded: Path, tmp_path: Path) -> str:
    """The URL of a seeded shop of one's own."""
    shutil.copy(seeded, tmp_path / "shop.db")
    return f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def other(url: str) -> Iterator[Engine]:
    """The same shop, opened a second time as another process would."""
    engine = open_database(url)
    yield engine
    engine.dispose()
