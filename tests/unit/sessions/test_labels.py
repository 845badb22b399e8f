"""The labels of filters."""

from collections.abc import Sequence

import pytest

from parley.core.errors import InvalidRequest
from parley.core.sessions.labels import read_filter


@pytest.mark.parametrize("labels", [["a=1", "a"], ["a", "a=1"], ["a=1", "a=1"]])
def test_a_repeated_label_does_not_widen_a_filter(labels: Sequence[str]) -> None:
    """A label with its value, repeated without it, keeps the value."""
    assert {"a": "1"} == read_filter(labels)


def test_one_name_has_one_value() -> None:
    """No session has two values of a label."""
    with pytest.raises(InvalidRequest, match="two values for one name: a"):
        read_filter(["a=1", "b=1", "a=2"])
