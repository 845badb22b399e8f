"""The encodings that are requested of backends."""

import pytest

from parley.backends.http import decoding


@pytest.mark.parametrize(
    ("version", "is_built", "expected"),
    [
        ((3, 13), False, "gzip, deflate, zstd"),  # from a package
        ((3, 14), True, "gzip, deflate, zstd"),
        ((3, 14), False, "gzip, deflate"),
    ],
)
def test_a_python_without_zstd_requests_none(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], expected: str, *, is_built: bool
) -> None:
    """The library is imported with the first response that needs it, which is too late to find that it is missing."""
    monkeypatch.setattr("sys.version_info", version)
    monkeypatch.setattr(decoding, "find_spec", lambda _: "_zstd" if is_built else None)
    assert expected == decoding.encodings()
