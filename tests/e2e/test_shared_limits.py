"""Limits, breakers and holds that workers and replicas share: 32 clients against each kind, on SQLite and PostgreSQL.

SQLite has one Parley with two workers, PostgreSQL two with one worker each; `make probe` gives each Parley four
(`PARLEY_LIMIT_WORKERS`). Every test uses an account of its own, whose plan has one limit.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests import postgres
from tests.processes import Parley, run_here, started
from tests.upstream import Gate, Json, ScriptedUpstream

CLIENTS = 32
USED = 60  # tokens of each answer
RESERVED = 100  # its `max_tokens`
PLANS = """
plans:
  pro: {}
  requests: {limits: {requests_per_minute: 40}}
  concurrent: {limits: {concurrent: 5}}
  tokens: {limits: {tokens_per_day: 6000}}
  money: {limits: {cost_per_month: 6000}}
  sessions: {limits: {sessions: 10}}
  bytes: {limits: {bytes: 5000}}
  killed: {limits: {concurrent: 5, tokens_per_day: 1000}}
prices: {up/m: {prompt: 1000000, completion: 1000000}}
"""


class Service:
    """The Parleys of one store, and clients that call them in turn."""

    def __init__(self, parleys: list[Parley], config: Path, upstream: ScriptedUpstream, down: ScriptedUpstream) -> None:
        self.parleys = parleys
        self.down = down
        self.upstream = upstream
        self._config = config

    def key(self, plan: str) -> str:
        """Returns a key of a new account of the plan."""
        options = ("--account", f"{plan}-{time.monotonic_ns()}", "--plan", plan, "--config", str(self._config))
        folder = str(self.parleys[0].folder / "state")
        made = run_here("keys", "create", "--name", "test", "--json", *options, "--state-dir", folder)
        return str(json.loads(made.stdout)["key"])

    async def race(self, key: str, call: Callable[["Client"], Awaitable[None]]) -> "Client":
        """Runs a call in 32 clients at once; returns what all of them have seen."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            client = Client(self.parleys, session)
            await asyncio.gather(*[call(client) for _ in range(CLIENTS)])
        return client


class Client:
    """Makes calls; `seen` counts their outcomes: the status, or the code of the error."""

    def __init__(self, parleys: list[Parley], session: aiohttp.ClientSession) -> None:
        self.seen: Counter[str] = Counter()
        self._parleys = parleys
        self._session = session
        self._calls = 0

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Makes one call to the next Parley; returns its outcome and the body."""
        self._calls += 1
        url = f"{self._parleys[self._calls % len(self._parleys)].http}{path}"
        async with self._session.request(method, url, json=body) as response:
            answer = await response.json()
            outcome = answer["error"]["code"] if "error" in answer else str(response.status)
            self.seen[outcome] += 1
            return outcome, answer

    async def complete(self, text: str = "Hi", **fields: Any) -> Any:
        """Makes a completion without a session."""
        message = {"role": "user", "content": text}
        body = {"model": "m", "messages": [message], "max_tokens": RESERVED, "store": False, **fields}
        return await self.call("POST", "/v1/chat/completions", body)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def running(
    request: pytest.FixtureRequest, the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The Parleys of a store."""
    file = tmp_path_factory.mktemp("limits") / "parley.yaml"
    config = f"backends: {{up: {{kind: openai, base_url: '{the_upstream.url}'}}}}\n{PLANS}"
    with ExitStack() as stack:
        down = stack.enter_context(ScriptedUpstream())
        config = config.replace("}}\n", f"}}, down: {{kind: openai, base_url: '{down.url}'}}}}\n", 1)
        config += "models:\n"
        for model, backend in (("m", "up"), ("held", "up"), ("down", "down")):
            target = f"targets: [{{backend: {backend}, model: {model}}}]"
            config += f"- {{id: {model}, {target}, retries: {{attempts: 1}}}}\n"
        if request.param == "postgres":
            config += f"store: {{kind: postgres, url: '{stack.enter_context(postgres.serving()).empty()}'}}\n"
        file.write_text(config)
        replicas = 2 if request.param == "postgres" else 1
        workers = os.environ.get("PARLEY_LIMIT_WORKERS", "1" if replicas == 2 else "2")
        options = ("--config", str(file), "--workers", workers)
        parleys = [stack.enter_context(started(*options)) for _ in range(replicas)]
        yield Service(parleys, file, the_upstream, down)


@pytest.fixture
def service(running: Service, upstream: ScriptedUpstream) -> Service:
    """The Parleys, with an upstream that reports `USED` tokens."""
    upstream.default = lambda _: answered()
    return running


def answered(gate: Gate | None = None) -> Json:
    """Returns an answer of `USED` tokens; with a gate, once it is set."""
    usage = {"prompt_tokens": 1, "completion_tokens": USED - 1, "total_tokens": USED}
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return Json(body, wait=gate or b"")


async def test_requests(service: Service) -> None:
    """Completions, invalid calls and lists share one count; as many are answered as the limit has."""

    async def call(client: Client) -> None:
        await client.complete()
        await client.complete(temperature=9)
        await client.call("GET", "/v1/models")

    key, began = service.key("requests"), time.monotonic()
    seen = (await service.race(key, call)).seen
    refilled = (time.monotonic() - began) * 40 / 60
    accepted = 3 * CLIENTS - seen["rate_limit_exceeded"]
    assert 40 <= accepted <= 40 + refilled + 1, seen
    assert seen["200"] + seen["invalid_request"] == accepted


async def test_breakers_and_holds(service: Service) -> None:
    """An opened breaker of one worker opens those of the others, and a hold of one holds the calls of all.

    Two accounts see the failures, which are therefore the target's and not those of one account's requests.
    """
    service.down.go_down()
    message = {"role": "user", "content": "Hi"}
    held, down = (("POST", "/v1/chat/completions", {"model": m, "messages": [message]}) for m in ("held", "down"))
    async with AsyncExitStack() as stack:
        headers = [{"Authorization": f"Bearer {service.key('pro')}"} for _ in range(2)]
        sessions = [await stack.enter_async_context(aiohttp.ClientSession(headers=one)) for one in headers]
        here, there = ([Client([parley], one) for one in sessions] for parley in _ends(service.parleys))
        for client in here * 8:
            await client.call(*down)
        opened = len(service.down.turned_away)
        service.upstream.default = lambda _: Json({}, status=429, headers={"Retry-After": "60"})
        assert "200" != (await here[0].call(*held))[0]
        service.upstream.default = lambda _: answered()
        async with asyncio.timeout(60):
            while "200" == (await there[0].call(*held))[0]:
                await asyncio.sleep(0.1)
        for client in there * 4:
            await client.call(*down)
        assert len(service.down.turned_away) <= opened + len(there)  # a probe of each account


def _ends(parleys: list[Parley]) -> tuple[Parley, Parley]:
    return parleys[0], parleys[-1]


async def test_concurrent_calls(service: Service) -> None:
    """Exactly as many calls run at once as the limit has, and again when they have ended."""
    gate, key, ended = Gate(), service.key("concurrent"), list[Any]()
    service.upstream.default = lambda _: answered(gate)

    async def call(client: Client) -> None:
        ended.append(await client.complete())

    racing = asyncio.create_task(service.race(key, call))
    async with asyncio.timeout(60):
        while len(ended) < CLIENTS - 5:
            await asyncio.sleep(0.01)
    gate.set()
    assert {"200": 5, "rate_limit_exceeded": CLIENTS - 5} == (await racing).seen
    assert 5 == len(service.upstream.requests)
    assert {"200": 9} == (await service.race(key, _one_after_another(asyncio.Lock(), 9))).seen


def _one_after_another(turn: asyncio.Lock, count: int) -> Callable[[Client], Awaitable[None]]:
    """Returns a call of the first clients, one at a time: each must have ended for the limit when it is answered."""
    left = iter(range(count))

    async def call(client: Client) -> None:
        async with turn:
            if next(left, None) is not None:
                await client.complete()

    return call


@pytest.mark.parametrize("plan", ["tokens", "money"])
async def test_budgets(service: Service, plan: str) -> None:
    """A day's tokens and a month's money are exceeded by no reservation, and used up but for one."""

    async def until_exhausted(client: Client) -> None:
        while (await client.complete())[0] == "200":
            pass

    key = service.key(plan)
    answers = 0
    while (found := (await service.race(key, until_exhausted)).seen)["200"]:
        assert {"200", "insufficient_quota"} == set(found)
        answers += found["200"]
    assert 6000 - (RESERVED + 8) < answers * USED <= 6000


async def test_sessions(service: Service) -> None:
    """As many sessions are stored as the limit allows."""
    seen = (await service.race(service.key("sessions"), lambda client: client.complete(store=True))).seen
    assert {"200": 10, "insufficient_quota": CLIENTS - 10} == seen


async def test_bytes(service: Service) -> None:
    """The stored messages of the accepted turns fit, and one more would not."""
    text = "x" * 390

    async def call(client: Client) -> None:
        while (await client.complete(text, store=True))[0] == "200":
            pass

    seen = (await service.race(service.key("bytes"), call)).seen
    assert {"200": 12, "insufficient_quota": CLIENTS} == seen


async def test_killed_workers(service: Service) -> None:
    """The calls and tokens of killed workers are available again when their leases have expired."""
    gate, key, parley = Gate(), service.key("killed"), service.parleys[0]
    service.upstream.default = lambda _: answered(gate)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        client = Client([parley], session)
        lost = [asyncio.create_task(client.complete(max_tokens=150)) for _ in range(5)]
        await service.upstream.arrives(4)
        for tokens, code in ((150, "rate_limit_exceeded"), (900, "insufficient_quota")):
            assert code == (await client.complete(max_tokens=tokens))[0]
        for worker in parley.workers():
            os.kill(worker, signal.SIGKILL)
        await asyncio.gather(*lost, return_exceptions=True)
        gate.set()
        async with asyncio.timeout(60):
            while (await client.complete(max_tokens=900))[0] != "200":
                await asyncio.sleep(0.5)
