"""Several keys of a backend: calls, health checks and lists of models use those that work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from parley.core.errors import UpstreamError, UpstreamQuotaExhausted, UpstreamRateLimited
from parley.core.ports import Backend
from parley.core.ports.backends import ListsModels
from tests.contract.backends import call, collect, completion_of
from tests.contract.test_upstream_requests import configured
from tests.upstream import DONE, Answer, Events, Json, Received, ScriptedUpstream, chunks, hello

QUOTA = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
KEY_PLACES = [("key_header: api-key", "api-key"), ("key_parameter: key, query: {v: '1'}", "")]


def keys_of(upstream: ScriptedUpstream) -> list[str]:
    """Returns the key of each request."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in upstream.requests]


@asynccontextmanager
async def rotating(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Backend]:
    """Yields a backend with three keys."""
    settings = f'kind: openai, base_url: "{upstream.url}", api_keys: [key-number-1, key-number-2, key-number-3]'
    async with configured(settings, tmp_path) as backend:
        yield backend


async def test_keys_take_turns(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Each call uses the next key."""
    async with rotating(upstream, tmp_path) as backend:
        for _ in range(4):
            await backend.complete(call())
    assert ["key-number-1", "key-number-2", "key-number-3", "key-number-1"] == keys_of(upstream)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("status", "body"), [(429, QUOTA), (402, {}), (401, {}), (403, {}), (429, {})])
async def test_a_failed_key_is_replaced(
    upstream: ScriptedUpstream, tmp_path: Path, status: int, body: dict[str, Any], streams: bool
) -> None:
    """A call whose key is refused or used up goes on with the next one, and later calls leave that key out."""
    bad = {"key-number-1", "key-number-3"}
    upstream.default = lambda request: (
        Json(body, status) if request.headers["authorization"][7:] in bad else hello(request)
    )
    async with rotating(upstream, tmp_path) as backend:
        for _ in range(3):
            await (collect(backend, call()) if streams else backend.complete(call()))
    assert ["key-number-1", "key-number-2", "key-number-3", "key-number-2", "key-number-2"] == keys_of(upstream)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_error_in_place_of_an_answer_counts_for_the_key(
    upstream: ScriptedUpstream, tmp_path: Path, streams: bool
) -> None:
    """A key whose quota is reported with status 200 is left out, and the call goes on with the next key."""
    upstream.answer(Events([QUOTA, DONE]) if streams else QUOTA)
    async with rotating(upstream, tmp_path) as backend:
        answer = completion_of(await collect(backend, call())) if streams else await backend.complete(call())
        for _ in range(3):
            await backend.complete(call())
        assert (2, 1) == getattr(backend, "key_counts", None)
    assert "Hello there." == answer.choices[0].message.content.string_value
    assert 1 == keys_of(upstream).count("key-number-1")


async def test_a_stream_that_has_begun_is_not_repeated(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """After an error event behind text, the answer is not requested with another key: the caller has a part of it."""
    upstream.answer(Events([*chunks("Hel"), QUOTA, DONE]))
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(UpstreamError):
            await collect(backend, call())
    assert ["key-number-1"] == keys_of(upstream)


@pytest.mark.parametrize("streams", [False, True])
async def test_each_key_is_tried_once_in_a_call(upstream: ScriptedUpstream, tmp_path: Path, streams: bool) -> None:
    """A vendor that names a very short delay is not called again and again."""
    upstream.default = Json({}, 429, {"Retry-After-Ms": "1"})
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(UpstreamRateLimited):
            await (collect(backend, call()) if streams else backend.complete(call()))
    assert 3 == len(upstream.requests)


async def test_without_a_working_key_the_failure_is_the_vendors(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Once every key has failed, the call fails with the vendor's error; the next call tries one key only."""
    upstream.default = Json(QUOTA, 429)
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(UpstreamQuotaExhausted):
            await backend.complete(call())
        assert 3 == len(upstream.requests)
        with pytest.raises(UpstreamQuotaExhausted):
            await backend.complete(call())
    assert 4 == len(upstream.requests)


@pytest.mark.parametrize(("status", "body"), [(404, {}), (400, {"error": {"message": "no"}}), (500, {}), (413, {})])
async def test_other_failures_leave_the_keys_alone(
    upstream: ScriptedUpstream, tmp_path: Path, status: int, body: dict[str, Any]
) -> None:
    """A failure that says nothing about the key is not tried with another one."""
    upstream.answer(Json(body, status))
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(Exception):  # noqa: B017, PT011 - each status has its own
            await backend.complete(call())
        for _ in range(3):
            await backend.complete(call())
    assert ["key-number-1", "key-number-2", "key-number-3", "key-number-1"] == keys_of(upstream)


async def test_a_rate_limited_key_waits_for_its_retry_after(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """With all keys limited, the error has the vendor's time."""
    upstream.default = Json({}, 429, {"Retry-After": "7"})
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(UpstreamRateLimited) as caught:
            await backend.complete(call())
    assert pytest.approx(7, abs=1) == caught.value.retry_after


def key_of(request: Received, header: str) -> str:
    """Returns the key of a request, which is in a header, or in the query of KEY_PLACES."""
    return request.headers.get(header) or request.path.rpartition("?v=1&key=")[2]


async def look(backend: Backend) -> None:
    """Makes a health check, and reads the list of models."""
    await backend.check()
    assert isinstance(backend, ListsModels)
    assert {"m"} == set(await backend.list_models())


@pytest.mark.parametrize("keys", ["api_key: key-number-1", "api_keys: [key-number-1, key-number-2]"])
@pytest.mark.parametrize(("settings", "header"), KEY_PLACES)
async def test_health_checks_and_lists_have_the_key_where_calls_have_it(
    upstream: ScriptedUpstream, tmp_path: Path, settings: str, header: str, keys: str
) -> None:
    """The key is in the configured header or query parameter, with the other parameters of the query."""
    upstream.default = Json({"data": [{"id": "m"}]})
    async with configured(f'kind: openai, base_url: "{upstream.url}", {keys}, {settings}', tmp_path) as backend:
        await look(backend)
    assert ["key-number-1", "key-number-1"] == [key_of(request, header) for request in upstream.requests]
    assert ["/health", "/v1/models"] == [request.path.partition("?")[0] for request in upstream.requests]


@pytest.mark.parametrize("status", [401, 402, 403, 429])
@pytest.mark.parametrize(("settings", "header"), KEY_PLACES)
async def test_health_checks_and_lists_use_a_key_that_works(
    upstream: ScriptedUpstream, tmp_path: Path, settings: str, header: str, status: int
) -> None:
    """A refused key is replaced by the next one; one that calls have left out is not tried first."""

    def answer(request: Received) -> Answer:
        if key_of(request, header) == "key-number-1":
            return Json({}, status)
        return Json({"data": [{"id": "m"}]}) if request.method == "GET" else hello(request)

    upstream.default = answer
    both = f'kind: openai, base_url: "{upstream.url}", api_keys: [key-number-1, key-number-2], {settings}'
    async with configured(both, tmp_path) as backend:
        await look(backend)
        assert 2 * ["key-number-1", "key-number-2"] == [key_of(request, header) for request in upstream.requests]
        assert (2, 0) == getattr(backend, "key_counts", None)
        await backend.complete(call())
        before = len(upstream.requests)
        await look(backend)
    assert 2 * ["key-number-2"] == [key_of(request, header) for request in upstream.requests[before:]]


async def test_a_health_check_that_no_key_passes_fails(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The cause is the status of the last key; each key is tried once."""
    upstream.default = Json({}, 401)
    async with rotating(upstream, tmp_path) as backend:
        with pytest.raises(UpstreamError) as caught:
            await backend.check()
    assert ("/health: HTTP 401", 3) == (caught.value.cause, len(upstream.requests))
