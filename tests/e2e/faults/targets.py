"""Targets that each test scripts, behind one `parley up`."""

import json
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.e2e.faults import calling
from tests.e2e.faults.scripts import Script, answer_text
from tests.processes import Parley, started, until
from tests.upstream import Answer, Received, ScriptedUpstream

FIRST, SECOND = 1e12, 1e-12
"""Weights of the preferred and the other target."""


def _targets(model: str, *weights: float, **options: Any) -> list[dict[str, Any]]:
    names = ("one", "two", "three")
    return [
        {"backend": "up", "model": f"{model}/{name}", "weight": weight, **(options if name == "one" else {})}
        for name, weight in zip(names, weights, strict=False)
    ]


# Breakers keep failures from one test to the next, so that each test needs its own models.
MODELS: list[dict[str, Any]] = [
    {"id": "hedged", "targets": _targets("hedged", FIRST, SECOND), "hedge": "100ms"},
    {"id": "calm", "targets": _targets("calm", FIRST, SECOND), "hedge": "20s"},
    {"id": "watched", "targets": _targets("watched", FIRST, SECOND)},
    {"id": "narrow", "targets": _targets("narrow", FIRST, SECOND, max_concurrent=1)},
    {"id": "alone", "targets": _targets("alone", FIRST, max_concurrent=1)},
    {"id": "queued", "targets": _targets("queued", FIRST, max_concurrent=1, max_queued=1)},
    {"id": "spread", "targets": _targets("spread", 1, 1, 1)},
    {"id": "patient", "targets": _targets("patient", FIRST, SECOND)},
    {"id": "misled", "targets": _targets("misled", FIRST, SECOND)},
    {"id": "limited", "targets": _targets("limited", FIRST)},
    {"id": "throttled", "targets": _targets("throttled", FIRST)},
    {"id": "unpaid", "targets": _targets("unpaid", FIRST)},
    {"id": "waited for", "targets": _targets("waited for", FIRST, SECOND)},
    {"id": "provoked", "targets": _targets("provoked", FIRST)},
    {"id": "dead", "targets": _targets("dead", FIRST)},
    {"id": "left", "targets": _targets("left", FIRST, SECOND)},
    {
        "id": "hasty",
        "targets": _targets("hasty", FIRST),
        "timeouts": {"first_token": "500ms", "total": "500ms"},
        "fallbacks": ["calmer"],
    },
    {"id": "calmer", "targets": _targets("calmer", FIRST)},
]


class Targets:
    """The running stack. A target without a script answers with TEXT."""

    def __init__(self, parley: Parley) -> None:
        self.parley = parley
        self._scripts: dict[str, Script] = {}
        self._seen: dict[str, list[Received]] = defaultdict(list)

    def reset(self) -> None:
        """Removes all scripts and recorded requests."""
        self._scripts.clear()
        self._seen.clear()

    def set_script(self, target: str, script: Script) -> None:
        """Sets the script of a target (`model/name`)."""
        self._scripts[target] = script

    def seen(self, target: str, count: int = 0) -> list[Received]:
        """Waits for `count` requests at a target; returns all requests."""
        until(lambda: len(self._seen[target]) >= count, f"{count} requests at {target}")
        return self._seen[target]

    def answer(self, request: Received) -> Answer:
        """Answers as the requested target."""
        name = request.json["model"]
        self._seen[name].append(request)
        return self._scripts.get(name, answer_text())(request)

    def call(
        self, model: str, by: str, *, is_stream: bool = True, deadline: float = 60, **fields: Any
    ) -> calling.Outcome:
        """Makes a call; returns its result."""
        return calling.call(self.parley, by, calling.body(model, is_stream=is_stream, **fields), deadline)

    def open(self, model: str, *, is_stream: bool = True) -> socket.socket:
        """Starts a REST call on a socket that can be closed at any moment."""
        address = urlsplit(self.parley.http)
        connection = socket.create_connection((address.hostname, address.port))
        sent = json.dumps(calling.body(model, is_stream=is_stream)).encode()
        headers = {"Host": "x", "Content-Length": str(len(sent)), **self.parley.headers()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + sent)
        return connection

    def latest_turn(self, model: str) -> dict[str, Any]:
        """Returns the last message of a model's latest turn, after that has ended."""
        [session] = self.parley.request("GET", f"/api/v1/sessions?page_size=1&model={model}")[1]["sessions"]
        url = f"/api/v1/sessions/{session['id']}/messages"
        until(lambda: "in_progress" not in str(self.parley.request("GET", url)), "the turn is settled")
        return dict(self.parley.request("GET", url)[1]["messages"][-1])


@contextmanager
def running(folder: Path) -> Iterator[Targets]:
    """Runs the stack."""
    with ScriptedUpstream() as upstream:
        backends = {"up": {"kind": "openai", "base_url": upstream.url}}
        file = folder / "parley.yaml"
        file.write_text(yaml.safe_dump({"backends": backends, "models": MODELS}))
        with started("--config", str(file), "--workers", "1") as parley:
            targets = Targets(parley)
            upstream.default = targets.answer
            yield targets
