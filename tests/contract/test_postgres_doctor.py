"""The checks of `parley doctor` on a real PostgreSQL."""

from pathlib import Path

from parley.cli.diagnosis import clocks, store
from parley.config import Config
from parley.config.loader import parse
from parley.stores.open import create_store
from parley.stores.postgres import PostgresStore


def configuration(url: str) -> Config:
    """Returns a configuration with this store."""
    text = "backends: {l: {kind: llama_cpp}}\nmodels: [{id: m, targets: [{backend: l}]}]\n"
    return parse(f'{text}store: {{kind: postgres, url: "{url}"}}\n', "f")


async def test_a_new_and_a_used_database(postgres_url: str, tmp_path: Path) -> None:
    """A database without tables is fine before the first start and stays empty; with tables it is compared too."""
    config = configuration(postgres_url)
    (new,) = await store.check(config, tmp_path)
    assert ("ok", "PostgreSQL has no tables of Parley yet; `parley up` creates them") == (new.status, new.message)
    await create_store(config.store, tmp_path)
    (used,) = await store.check(config, tmp_path)
    assert ("ok", "PostgreSQL can be read and written, and its schema fits") == (used.status, used.message)
    (clock,) = await clocks.check(config, tmp_path, calls=False)
    assert ("ok", "this machine's clock agrees with that of the database within 5 s") == (clock.status, clock.message)


async def test_the_difference_of_the_clocks(postgres_url: str) -> None:
    """A clock that is ahead has a positive difference, one that is behind a negative one."""
    for ahead in (3600.0, -3600.0):
        opened = await PostgresStore.open(postgres_url, clock=lambda: 1e9, wall=lambda ahead=ahead: 1e9 + ahead)  # type: ignore[misc]
        assert ahead == await opened.clock_difference()
        await opened.close()


async def test_a_database_that_cannot_be_reached(postgres_url: str, tmp_path: Path) -> None:
    """The line has a remedy and no password."""
    url = "postgresql://parley:secret-word@127.0.0.1:1/parley"
    (found,) = await store.check(configuration(url), tmp_path)
    assert "failed" == found.status
    assert "secret-word" not in found.text
    assert ";" in found.text
