"""The listener of metrics, and the text that it merges."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from parley.logs.output import Output
from parley.supervisor import metrics, process
from parley.supervisor.addresses import Address


def test_families_of_workers_are_merged() -> None:
    """Each family is once in the text, with the samples of all workers, which have the label `worker`."""
    one = b'# HELP a_total A.\n# TYPE a_total counter\na_total{x="{1} 2"} 3.0\n# HELP b B.\n# TYPE b gauge\nb 1.0\n'
    two = b"# HELP b B.\n# TYPE b gauge\nb 2.0\n"
    expected = (
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="1",x="{1} 2"} 3.0\n'
        b'# HELP b B.\n# TYPE b gauge\nb{worker="1"} 1.0\nb{worker="2"} 2.0\n'
    )
    assert expected == metrics.merged([("1", one), ("2", two), ("3", b"")])


async def test_lost_lines_of_the_supervisor_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are a sample of the family of the workers, also while no worker answers."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = Output(descriptor)
    monkeypatch.setattr(process, "_stderr", lambda: output)
    process.print_notice("a notice")
    text = await metrics.collect({"1": tmp_path / "no.sock"}, None)
    os.close(descriptor)
    assert b'parley_log_lines_lost_total{worker="supervisor"} 1' in text.splitlines()


def test_without_the_default_address_there_are_no_metrics(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If another program has the default address, Parley starts with a warning that names the option."""

    async def listen() -> Address | None:
        async with metrics.listening(None) as listener:
            return listener.address

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Address(*other.getsockname())
        monkeypatch.setattr(metrics, "DEFAULT_METRICS", taken)
        assert asyncio.run(listen()) is None
    expected = f"parley: there are no metrics, because {taken} is in use; choose another address with --metrics\n"
    assert expected == capfd.readouterr().err


async def test_scrapes_that_wait_share_a_collection() -> None:
    """Requests during a collection get the next one: no result is older than its request, and none waits for two."""
    listener, may_end, begun = metrics.Listener(), asyncio.Event(), 0

    async def collect() -> bytes:
        nonlocal begun
        begun += 1
        own = begun
        await may_end.wait()
        return b"%d" % own

    listener.collect = collect
    first = asyncio.create_task(listener.scrape())
    await asyncio.wait({first}, timeout=0.01)
    later = [asyncio.create_task(listener.scrape()) for _ in range(5)]
    await asyncio.wait(later, timeout=0.01)
    later[0].cancel()  # its client has left
    may_end.set()
    assert [b"1", *[b"2"] * 4] == await asyncio.gather(first, *later[1:])
    assert b"3" == await listener.scrape()
