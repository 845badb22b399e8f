"""The cost of a call in counts that do not depend on the machine: Python functions called, peak memory, cyclic garbage.

The numbers are the measured ones and about 8 % more, 12 % for bursts and sessions: on a machine with other load bursts
arrive in more pieces, and commits take more steps. Of memory, whose peak depends on which threads run, they are a third
more.

After an improvement, lower them; before raising one, look for the functions that are new in the list of a failure.
"""

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import grpc
import pytest
import uvloop

from parley.backends.http.connection import Connection
from parley.backends.openai.backend import OpenAI
from parley.config.loader import parse
from parley.core.ports.plain_text import PlainText
from parley.metrics.worker import WorkerMetrics
from parley.rpc.call import Call
from parley.stores.sqlite import deferred
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.load import canned
from tests.load.stack import configuration, upstream
from tests.rpc.calling import chat_request, consume
from tests.rpc.conftest import Worker, serving

_BATCHES = 20  # at most: periodic work of the server adds to some of them, never to all
_CALLS = 8  # of a batch
_FIRST_EVENTS = 8  # of a stream, which differ from the others
_EVENTS = 25
_TOP = 25
# What the edge adds to the metadata of a request, see edge/envoy.yaml.
_EDGE = (
    ("x-forwarded-for", "192.0.2.2"),
    ("x-forwarded-proto", "http"),
    ("x-request-id", "7df96f36-e7c5-406c-8079-61849692df27"),
    ("x-correlation-id", "7df96f36-e7c5-406c-8079-61849692df27"),
    ("parley-client-address", "127.0.0.1"),
)
_REST = (("parley-nulls", "openai"), ("parley-dialect", "openai"))


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a call may cost.

    Attributes:
        functions: Calls of Python functions, resumptions of coroutines included.
        peak_kib: Memory of Python objects at once, those of the client included.
        garbage: Objects that only the collector frees.
    """

    functions: float
    peak_kib: float
    garbage: float


class FunctionCounter:
    """Counts the Python functions that a thread calls."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        """Counts an event of `sys.setprofile`."""
        if event == "call":
            self.calls[frame.f_code] += 1


@pytest.fixture(scope="module")
def server(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A server with the real backend, the upstream of the benchmark, and the metrics and the loop of a worker."""
    loop, running = uvloop.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with upstream() as source, pytest.MonkeyPatch.context() as patched:
        # On a busy machine a call takes longer, and would be two transactions instead of one.
        patched.setattr(deferred, "_WRITE_SECONDS", 60.0)
        backend = OpenAI(f"http://{source.address}/v1", None)
        folder, config = tmp_path_factory.mktemp("costs"), configuration(source.address)
        calls: set[Call] = set()
        metrics = WorkerMetrics(parse(config, "costs.yaml"), calls)
        start = serving(folder, config, time.time, {"bench": backend}, running=calls, metrics=metrics.calls)
        yield asyncio.run_coroutine_threadsafe(running.enter_async_context(start), loop).result(30)
        asyncio.run_coroutine_threadsafe(running.aclose(), loop).result(30)
        asyncio.run_coroutine_threadsafe(backend.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def channel(server: Worker) -> Iterator[grpc.Channel]:
    """A channel to the server."""
    with grpc.insecure_channel(server.address) as opened:
        yield opened


_METHODS = {
    ("unary-off", "rest"): "CreateChatCompletionJson",
    ("unary-auto", "rest"): "CreateChatCompletionJson",
    ("unary-off", "grpc"): "CreateChatCompletion",
    ("burst-off", "rest"): "StreamChatCompletionEvents",
    ("burst-off", "grpc"): "StreamChatCompletion",
}
_LIMITS = {
    ("unary-off", "rest"): Limits(185, 40, 14),
    ("unary-auto", "rest"): Limits(264, 40, 14),
    ("unary-off", "grpc"): Limits(198, 40, 14),
    ("burst-off", "rest"): Limits(441, 94, 14),
    ("burst-off", "grpc"): Limits(448, 94, 14),
}


@pytest.mark.parametrize(("model", "protocol"), _METHODS)
def test_a_call_costs_no_more_than_its_limits(model: str, protocol: str, server: Worker, channel: grpc.Channel) -> None:
    """The functions, the peak memory and the cyclic garbage of a call stay within their limits."""
    method = getattr(ChatCompletionsStub(channel), _METHODS[model, protocol])
    metadata = (("authorization", f"Bearer {server.keys['ada']}"), *_EDGE, *(_REST if protocol == "rest" else ()))
    request = chat_request(canned.QUESTION, model=model)

    def call() -> None:
        consume(method(request, metadata=metadata))

    for _ in range(_CALLS):
        call()
    limits = _LIMITS[model, protocol]
    functions, listing = _functions(server, call, limits.functions)
    assert functions <= limits.functions, listing
    assert _least(lambda: _garbage(call), limits.garbage) <= limits.garbage
    assert _least(lambda: _peak_kib(call), limits.peak_kib) <= limits.peak_kib


_EVENT_LIMITS = {"StreamChatCompletionEvents": 30, "StreamChatCompletion": 30}


@pytest.mark.parametrize("method", _EVENT_LIMITS)
def test_an_event_costs_no_more_functions_than_its_limit(method: str, server: Worker, channel: grpc.Channel) -> None:
    """From the arrival of bytes of a stream to the end of their write; events that arrive together count as one."""
    metadata = (("authorization", f"Bearer {server.keys['ada']}"), *_EDGE, *_REST)
    request, counter = chat_request(canned.QUESTION, model="paced-off"), FunctionCounter()
    stream = getattr(ChatCompletionsStub(channel), method)(request, metadata=metadata)
    for number, _ in enumerate(stream):
        if number == _FIRST_EVENTS:
            server.run(_profile(counter))
        if number == _FIRST_EVENTS + _EVENTS:
            break
    server.run(_profile(None))
    stream.cancel()
    arrivals = counter.calls[Connection.data_received.__code__]
    # What is called less often is periodic work of the server.
    own = Counter({code: count for code, count in counter.calls.items() if count > 0.8 * arrivals and _is_ours(code)})
    assert own.total() <= _EVENT_LIMITS[method] * arrivals, _listing(own, arrivals)


def test_a_stream_that_waits_keeps_no_chunk(server: Worker, channel: grpc.Channel) -> None:
    """Between its events a stream holds none of the messages that it has sent, and no metadata that it does not need.

    There may be thousands of streams.
    """
    method: Any = ChatCompletionsStub(channel).StreamChatCompletionEvents
    metadata = (("authorization", f"Bearer {server.keys['ada']}"), *_EDGE, *_REST)
    gc.collect()
    of_other_tests, calls_of_other_tests = len(_chunks()), _calls()
    stream = method(chat_request(canned.QUESTION, model="paced-off"), metadata=metadata)
    next(stream)
    running = [one for one in _calls() if one not in calls_of_other_tests and hasattr(one, "task")]
    assert [{"parley-dialect": "openai"}] == [call.metadata for call in running]
    # One of the samples is taken between two events, and not while one is sent.
    assert any(len(_chunks()) <= of_other_tests for _ in stream)
    stream.cancel()


def test_metrics_take_two_functions_of_a_call_and_tracing_none_while_it_is_off(
    server: Worker, channel: grpc.Channel
) -> None:
    """Observing a call is a search in a dictionary and additions; without an endpoint no part of tracing runs."""
    method = getattr(ChatCompletionsStub(channel), _METHODS["unary-off", "rest"])
    metadata = (("authorization", f"Bearer {server.keys['ada']}"), *_EDGE, *_REST)
    counter = FunctionCounter()
    for profile in (None, counter):  # the first batch finds the series
        server.run(_profile(profile))
        for _ in range(_CALLS):
            consume(method(chat_request(canned.QUESTION, model="unary-off"), metadata=metadata))
    server.run(_profile(None))
    functions: Counter[str] = Counter()
    for code, count in counter.calls.items():
        functions[code.co_filename.rpartition("/parley/")[2].partition("/")[0]] += count
    assert 0 < functions["metrics"] <= 2 * _CALLS
    assert 0 == functions["tracing"]


def _chunks() -> list[Any]:
    """Returns the parts of streams that exist."""
    return [one for one in gc.get_objects() if type(one) in {ChatCompletionChunk, PlainText}]


def _calls() -> list[Call]:
    """Returns the calls that exist."""
    return [one for one in gc.get_objects() if type(one) is Call]


def _least(measure: Callable[[], float], limit: float) -> float:
    """Returns the first measurement within the limit, or the least of several: other threads add to some of them."""
    least = measure()
    for _ in range(3):
        if least <= limit:
            break
        least = min(least, measure())
    return least


def _functions(server: Worker, call: Callable[[], None], limit: float) -> tuple[float, str]:
    """Returns the functions of a call in the server's thread, and a list of the most called.

    They are those of the first batch within the limit, or of the cheapest.
    """
    counter = FunctionCounter()
    server.run(_profile(counter))
    batches = []
    for _ in range(_BATCHES):
        counter.calls = Counter()
        for _ in range(_CALLS):
            call()
        batches.append(counter.calls)
        if counter.calls.total() <= limit * _CALLS:
            break
    server.run(_profile(None))
    best = min(batches, key=Counter.total)
    return best.total() / _CALLS, _listing(best, _CALLS)


def _listing(calls: Counter[CodeType], times: float) -> str:
    """Returns the number of functions of each of so many measured things, and the most called ones."""
    lines = (f"{count / times:8.1f}  {_name(code)}" for code, count in calls.most_common(_TOP))
    return "\n".join((f"{calls.total() / times:.1f} functions:", *lines))


async def _profile(counter: FunctionCounter | None) -> None:
    sys.setprofile(counter)


def _is_ours(code: CodeType) -> bool:
    return "/parley/" in code.co_filename and not code.co_filename.endswith("/core/background.py")


def _name(code: CodeType) -> str:
    return f"{code.co_qualname} ({'/'.join(code.co_filename.split('/')[-2:])}:{code.co_firstlineno})"


def _garbage(call: Callable[[], None]) -> float:
    """Returns the objects in cycles that a call leaves behind."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(_CALLS):
            call()
        return gc.collect() / _CALLS
    finally:
        gc.enable()


def _peak_kib(call: Callable[[], None]) -> float:
    """Returns the memory that the cheapest call needs at once."""
    tracemalloc.start()
    try:
        peaks = []
        for _ in range(_CALLS):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            call()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        return min(peaks) / 1024
    finally:
        tracemalloc.stop()
