"""Behavior of the HTTP client: proxies, connections, framing and timeouts."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from yarl import URL

from parley.backends.http.errors import FAILURES
from parley.backends.openai.backend import OpenAI
from parley.config import ConfigError
from parley.core.errors import ParleyError, StreamBroken, UpstreamTimeout, UpstreamUnavailable
from tests.contract.backends import call, collect, endpoint_for, stream_of
from tests.upstream import Cut, Delay, Events, Gate, Json, Raw, ScriptedUpstream, Stall, chunks, completion, stream

SCRIPT = """
import asyncio, sys
from parley.backends.openai.backend import OpenAI
from parley.core.errors import ParleyError
from tests.contract.backends import call, collect, endpoint_for, stream_of
async def main():
    backend = OpenAI(sys.argv[1], "sk-for-the-proxy-test")
    try:
        for _ in range(2):
            answer = await backend.complete(call())
            print(answer.choices[0].message.content.string_value)
    except ParleyError as error:
        print(type(error).__name__, error.cause)
    await backend.close()
asyncio.run(main())
"""


def run_through_proxy(upstream: ScriptedUpstream, url: str, **more: str) -> str:
    """Makes two calls in a process whose proxy is the upstream. Returns its output."""
    proxy = upstream.url.removesuffix("/v1").replace("http://", "http://ada:secret@")
    variables = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "", "PYTHONPATH": ".", **more}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, url], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_proxy_of_plain_http() -> None:
    """An http:// request goes to the proxy with the absolute URL and the proxy's credentials."""
    with ScriptedUpstream() as upstream:
        assert "Hello there.\nHello there.\n" == run_through_proxy(upstream, "http://upstream.invalid/v1")
        first = upstream.requests[0]
    assert "http://upstream.invalid/v1/chat/completions" == first.path
    assert "upstream.invalid" == first.headers["host"]
    assert "Basic YWRhOnNlY3JldA==" == first.headers["proxy-authorization"]


def test_proxy_of_https() -> None:
    """An https:// request uses a tunnel; the proxy sees neither the key nor the path."""
    with ScriptedUpstream() as upstream:
        upstream.answer(Json({}, 502))
        printed = run_through_proxy(upstream, "https://upstream.invalid/v1")
        first = upstream.requests[0]
    assert printed.startswith("UpstreamUnavailable")
    assert ("CONNECT", "upstream.invalid:443") == (first.method, first.path)
    assert "authorization" not in first.headers


def test_no_proxy() -> None:
    """An address in no_proxy is connected directly."""
    with ScriptedUpstream() as upstream:
        assert "Hello there." in run_through_proxy(upstream, upstream.url, no_proxy="127.0.0.1")
    assert "/v1/chat/completions" == upstream.requests[0].path


async def test_stale_connection() -> None:
    """A pooled connection that the upstream closes is replaced once by a fresh one."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        upstream.answer(completion("one"), Raw([Cut()]), completion("two"), Raw([Cut(reset=True)]), Raw([Cut()]))
        await backend.complete(call())
        answer = await backend.complete(call())
        assert "two" == answer.choices[0].message.content.string_value
        with pytest.raises(UpstreamUnavailable):
            await backend.complete(call())
        await backend.close()
    assert [1, 1, 2, 2, 3] == [request.connection for request in upstream.requests]


@pytest.mark.parametrize("stream", [False, True])
async def test_no_retry_after_a_delayed_close(stream: bool) -> None:
    """A connection that closes after more than a second is not stale, so the call is not retried."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        upstream.answer(completion("one"), Raw([Delay(1.2), Cut()]))
        await backend.complete(call())
        with pytest.raises(UpstreamUnavailable):
            await (collect(backend, call()) if stream else backend.complete(call()))
        await backend.close()
    assert [1, 1] == [request.connection for request in upstream.requests]


async def test_concurrent_calls() -> None:
    """Concurrent calls use separate connections and may complete in any order."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        gate = Gate()
        body = b'{"choices": [{"message": {"content": "late"}}]}'
        late = Raw(["HTTP/1.1 200 OK\r\n", gate, b"Content-Length: %d\r\n\r\n%s" % (len(body), body)])
        upstream.answer(late)
        first = asyncio.ensure_future(backend.complete(call()))
        await upstream.arrives()
        second = await backend.complete(call())
        gate.set()
        assert "Hello there." == second.choices[0].message.content.string_value
        assert "late" == (await first).choices[0].message.content.string_value
        await backend.close()


async def test_informational_responses() -> None:
    """1xx responses are skipped."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        body = b'{"choices": [{"message": {"content": "x"}}]}'
        upstream.answer(
            Raw(
                [b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
            )
        )
        assert "x" == (await backend.complete(call())).choices[0].message.content.string_value
        await backend.close()


@pytest.mark.parametrize("garbage", ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 OK\r\n\r\n", "\x16\x03\x01", "HTTP/1.1 20"])
async def test_no_http(garbage: str) -> None:
    """A server that does not speak HTTP maps to UpstreamUnavailable."""
    with ScriptedUpstream() as upstream:
        upstream.answer(Raw([garbage]))
        backend = OpenAI(upstream.url)
        with pytest.raises(UpstreamUnavailable):
            await backend.complete(call())
        await backend.close()


async def test_bad_framing() -> None:
    """Invalid chunked framing in a stream raises StreamBroken."""
    event = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        gate = Gate()
        upstream.answer(Raw([head, b"%x\r\n%s\r\n" % (len(event), event), gate, "zz\r\n"]))
        chunks = stream_of(backend, call())
        assert "a" == (await anext(chunks)).choices[0].delta.content
        gate.set()
        with pytest.raises(StreamBroken, match="broke off") as caught:
            await asyncio.wait_for(anext(chunks), 60)
        assert "the body is malformed or truncated" in (caught.value.cause or "")
        await backend.close()


async def test_endless_stream() -> None:
    """`total` ends a stream that always has data buffered."""
    many = f"data: {json.dumps(chunks('x')[1])}\n\n" * 10_000
    with ScriptedUpstream() as upstream:
        upstream.answer(Events([many] * 20))
        backend = OpenAI(upstream.url)

        async def listen() -> None:
            async for _ in stream_of(backend, call(timeouts={"total": 1})):
                await asyncio.sleep(0.2)

        with pytest.raises(StreamBroken, match="broke off"):
            await asyncio.wait_for(listen(), 30)
        await backend.close()


async def test_incomplete_error_body() -> None:
    """An error response is classified by its status if its body does not arrive."""
    with ScriptedUpstream() as upstream:
        upstream.answer(Raw(["HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nso", Stall()]))
        backend = OpenAI(upstream.url)
        with pytest.raises(UpstreamUnavailable):
            await asyncio.wait_for(backend.complete(call()), 60)
        await backend.close()


async def test_silence_after_the_first_token() -> None:
    """After the first token, `stream_idle` applies instead of a longer `first_token`."""
    with ScriptedUpstream() as upstream:
        upstream.answer(Events([*chunks("Hel"), Stall()]))
        backend = OpenAI(upstream.url)
        upstream_call = call(timeouts={"first_token": 600, "stream_idle": 0.05})
        with pytest.raises(StreamBroken):
            await asyncio.wait_for(collect(backend, upstream_call), 60)
        await backend.close()


async def test_body_without_a_length() -> None:
    """A body without a length ends with its connection, which is not reused."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        upstream.answer(Raw(['HTTP/1.1 200 OK\r\n\r\n{"choices": [{"message": {"content": "x"}}]}']))
        assert "x" == (await backend.complete(call())).choices[0].message.content.string_value
        await backend.complete(call())
        await backend.close()
    assert 2 == upstream.connections


async def test_unread_body() -> None:
    """A connection with an unread body is not reused."""
    with ScriptedUpstream() as upstream:
        endpoint = endpoint_for(URL(upstream.url))
        upstream.answer(stream("a"))
        answer = await endpoint.post(b"{}", call())
        answer.close()
        await endpoint.post(b"{}", call())
        await endpoint.close()
    assert 2 == upstream.connections


async def test_unknown_host() -> None:
    """An unknown host name maps to UpstreamUnavailable."""
    backend = OpenAI("http://upstream.invalid/v1")
    with pytest.raises(UpstreamUnavailable):
        await backend.complete(call())
    await backend.close()


async def test_used_again_after_close() -> None:
    """A closed client opens a new pool on the next call."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        for _ in range(2):
            await backend.complete(call())
            await backend.close()
    assert 2 == upstream.connections


@pytest.mark.parametrize("key", ["sk-a\nX-Evil: 1", "sk-ü", "sk-a\r"])
def test_invalid_key(key: str) -> None:
    """A key that is not a valid header value raises ConfigError, which does not contain the key."""
    with pytest.raises(ConfigError) as caught:
        OpenAI("http://127.0.0.1/v1", key)
    assert key not in str(caught.value)


async def test_connect_timeout() -> None:
    """A connection that is not established within `connect` maps to UpstreamTimeout."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        backend = OpenAI(f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        with pytest.raises(UpstreamTimeout):
            await asyncio.wait_for(backend.complete(call(timeouts={"connect": 0.05})), 60)
        await backend.close()


def test_timeouts_are_failures() -> None:
    """FAILURES includes TimeoutError."""
    assert issubclass(TimeoutError, FAILURES)
    assert not issubclass(ParleyError, FAILURES)
