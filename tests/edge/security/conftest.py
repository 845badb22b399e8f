"""Fixtures of the tests that need the whole `parley up`."""

from tests.e2e.conftest import scripted_config, the_upstream, upstream

__all__ = ["scripted_config", "the_upstream", "upstream"]
