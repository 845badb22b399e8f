"""The headers of callers that backends receive."""

from parley.rpc.metadata.forwarded import forwarded


def test_only_listed_and_printable_headers_are_passed_on() -> None:
    """Headers that no backend lists, that are absent or empty, or that a header cannot carry, are left out."""
    metadata = {"x-a": "1", "x-b": "", "x-c": "a\r\nx-d: b", "x-e": "é", "authorization": "Bearer sk-1"}
    assert (("x-a", "1"),) == tuple(forwarded(metadata, ["x-a", "x-b", "x-c", "x-e", "x-f"]))
