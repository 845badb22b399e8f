"""How parley-client divides an import into calls."""

import json

from parley_client.session_requests import import_requests

_MIB = 1 << 20


def _session(name: str, size: int) -> list[bytes]:
    properties = json.dumps({"object": "chat.session", "id": name}).encode()
    return [properties, json.dumps({"role": "user", "content": "x" * size}).encode()]


def test_calls_have_complete_sessions() -> None:
    """A call has sessions of up to 4 MiB, and one that is longer alone; the lines are unchanged."""
    lines = [
        line
        for name, size in zip("abcde", (1, 2 * _MIB, 3 * _MIB, 5 * _MIB, 1), strict=True)
        for line in _session(name, size)
    ]
    bodies = [request.body.data for request in import_requests(lines)]
    assert b"".join(line + b"\n" for line in lines) == b"".join(bodies)
    firsts = [[json.loads(line)["id"] for line in body.splitlines() if b'"id"' in line[:60]] for body in bodies]
    assert [["a", "b"], ["c"], ["d"], ["e"]] == firsts
    assert all(len(body) <= 6 * _MIB for body in bodies)


def test_nothing_to_import() -> None:
    """No line is no call."""
    assert [] == list(import_requests([]))
