"""Fixtures: a router with scripted backends."""

import pytest

from tests.unit.routing.execution.stack import Stack


@pytest.fixture
def stack() -> Stack:
    """The router and its backends."""
    return Stack()
