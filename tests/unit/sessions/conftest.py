"""Fixtures: a store that records its calls."""

import pytest

from tests.unit.sessions.recording_store import RecordingStore


@pytest.fixture
def store() -> RecordingStore:
    """The store."""
    return RecordingStore()
