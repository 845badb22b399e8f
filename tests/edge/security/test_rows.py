"""Rows of the security probe that need the whole Parley, end to end; the other files of this folder have the others.

One Parley with a scripted upstream serves all tests. Each test has an account of its own.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Parley, reserved_port, run_here, started, until
from tests.upstream import Gate, Json, Received, ScriptedUpstream, completion

CHAT = "/v1/chat/completions"
CHOOSING = (
    *("models", "api_base", "api_key", "fallbacks", "chat_template", "kv_transfer_params", "priority", "mcp_servers"),
)
TARGET = "targets: [{{backend: up}}], retries: {{attempts: 1}}, whole_answers: whole"
CONFIG = f"""\
backends:
  up: {{{{kind: openai, base_url: "{{url}}"}}}}
  loop: {{{{kind: parley, target: "127.0.0.1:{{port}}", api_key: "{{key}}"}}}}
models:
  - {{{{id: m, {TARGET}}}}}
  - {{{{id: other, {TARGET}}}}}
  - {{{{id: loop, targets: [{{{{backend: loop, model: loop}}}}], sessions: "off"}}}}
default_model: m
"""
_accounts = (f"account-{number}" for number in itertools.count())


def new_key(state: Path, *options: str, account: str | None = None) -> str:
    """Returns a new key, by default of a new account."""
    options = ("--name", "test", "--account", account or next(_accounts), *options)
    return str(json.loads(run_here("keys", "create", "--json", *options, "--state-dir", str(state)).stdout)["key"])


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with one worker, one of whose models is another Parley: itself."""
    folder, port = tmp_path_factory.mktemp("rows"), reserved_port()
    key, config = new_key(folder / "state"), folder / "parley.yaml"
    config.write_text(CONFIG.format(url=the_upstream.url, port=port, key=key))
    with started("--config", str(config), "--grpc", f"127.0.0.1:{port}", folder=folder) as running:
        yield running


class Caller:
    """Makes calls with a key."""

    def __init__(self, parley: Parley, *options: str, account: str | None = None) -> None:
        self.parley = parley
        options = ("--config", str(parley.folder / "parley.yaml"), *options)
        self.key = new_key(parley.folder / "state", *options, account=account)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Makes a call; returns the status and the JSON."""
        return self.parley.request(method, path, body, self.key)

    def complete(self, text: str = "Hi", **fields: Any) -> tuple[int, Any]:
        """Makes a completion without a session."""
        message = {"role": "user", "content": text}
        return self.request("POST", CHAT, {"messages": [message], "store": False, **fields})

    def begin(self, text: str = "Hi", **fields: Any) -> str:
        """Begins a session; returns its path."""
        status, answer = self.complete(text, store=True, **fields)
        assert 200 == status, answer
        return f"/api/v1/sessions/{answer['chatSessionId']}"


def test_row_4_a_parameter_that_fails_costs_no_other_account(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Kind: a caller's own failures that are charged to a shared target."""

    def answer(request: Received) -> Json:
        is_wrong = request.json.get("reasoning_format") == "zzz"
        return Json({"error": {"message": "unknown"}}, 500) if is_wrong else Json(completion("Hello"))

    upstream.default = answer
    one, other = Caller(parley), Caller(parley)
    for _ in range(12):
        assert 200 != one.complete(reasoning_format="zzz")[0]
        assert 200 == other.complete()[0]


def test_row_5_unknown_parameters_are_not_passed_on(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Kind: parameters that choose models, addresses, credentials, templates or plugins."""
    caller = Caller(parley, "--model", "m")
    for name in CHOOSING:
        status, answer = caller.complete(**{name: "x"})
        assert (400, "unsupported_parameter") == (status, answer["error"]["code"])
        assert f"extra_body.{name}" == answer["error"]["param"]
    assert [] == upstream.requests


def test_row_6_the_history_is_reserved(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Kind: a limit that is checked before the cost of a call is known."""
    caller = Caller(parley, "--limit", "tokens_per_day=20000")  # of a minute, it would fill again meanwhile
    session, gate = caller.begin("word " * 5000, max_tokens=10), Gate()
    forks = [caller.request("POST", f"{session}/fork")[1]["id"] for _ in range(6)]
    upstream.reset()
    upstream.default = lambda _: Json(completion("Hello"), wait=gate)

    def go_on(fork: str) -> int:
        return caller.complete(store=True, chatSessionId=fork, max_tokens=10)[0]

    with ThreadPoolExecutor(len(forks)) as pool:
        calls = [pool.submit(go_on, fork) for fork in forks]
        until(lambda: 3 == sum(call.done() for call in calls), "three calls are refused")
        gate.set()
        assert {200: 3, 429: 3} == Counter(call.result() for call in calls)
    assert 3 == len(upstream.requests)


def test_row_7_every_call_counts(parley: Parley) -> None:
    """Kind: limits that hold for completions only."""
    caller = Caller(parley, "--limit", "requests_per_minute=5")
    session = caller.begin()
    calls = [
        caller.request("POST", f"{session}/fork")[0],
        caller.complete(temperature=9)[0],
        caller.request("GET", "/v1/models")[0],
        caller.request("GET", "/api/v1/sessions")[0],
    ]
    assert [200, 400, 200, 200] == calls
    assert 429 in {caller.request("GET", "/v1/models")[0] for _ in range(3)}


def test_row_8_a_page_is_bounded_by_bytes(parley: Parley) -> None:
    """Kind: pages that are counted in rows, and errors in the words of the transcoder."""
    caller = Caller(parley)
    session = caller.begin("x" * 1_500_000)
    identity = session.rpartition("/")[2]
    for _ in range(2):
        assert 200 == caller.complete("x" * 1_500_000, store=True, chatSessionId=identity)[0]
    status, page = caller.request("GET", f"{session}/messages?page_size=100")
    assert 200 == status
    assert len(page["messages"]) < 6
    assert page["next_page_token"]


def test_row_13_the_entries_of_maps_are_bounded(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Kind: unbounded work on the loop of a worker."""
    status, answer = Caller(parley).complete(logit_bias={str(token): 1 for token in range(20_000)})
    assert (400, "logit_bias") == (status, answer["error"]["param"])
    assert [] == upstream.requests


def test_row_17_control_characters_reach_no_terminal(parley: Parley) -> None:
    """Kind: a caller's text in the log and in the output of commands."""
    escape, caller = "\x1b]0;x\x07\x1b[31m", Caller(parley)
    assert 404 == caller.complete(model=f"m{escape}")[0]
    caller.begin(f"Hi{escape}", metadata={"title": escape}, user=escape)
    options = ("--state-dir", str(parley.folder / "state"))
    printed = [run_here(*command, *options).stdout for command in (("sessions", "list"), ("usage",), ("keys", "list"))]
    assert all(printed)
    for text in (parley.log, parley.output, *printed):
        assert not {"\x1b", "\x07"} & set(text)


def test_row_19_a_loop_of_parleys_ends(parley: Parley) -> None:
    """Kind: Parleys that name one another as backends."""
    before = parley.log.count('"event":"call"')
    status, answer = Caller(parley).complete(model="loop")
    assert (508, "loop_detected") == (status, answer["error"]["code"])
    assert parley.log.count('"event":"call"') - before <= 10


def test_row_20_a_key_s_models_bound_its_sessions(parley: Parley) -> None:
    """Kind: a scope that holds for completions only."""
    account = next(_accounts)
    whole, limited = Caller(parley, account=account), Caller(parley, "--model", "other", account=account)
    session = whole.begin()
    assert [] == limited.request("GET", "/api/v1/sessions")[1]["sessions"]
    unknown = {"error": f'Unknown session "{session.rpartition("/")[2]}"'}
    for method, end in (("GET", ""), ("GET", "/messages"), ("GET", "/export"), ("POST", "/fork"), ("DELETE", "")):
        assert (404, unknown) == limited.request(method, f"{session}{end}")
    assert 200 == whole.request("GET", session)[0]
