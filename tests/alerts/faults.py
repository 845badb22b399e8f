"""The faults of the drill, by the alert that each of them causes."""

import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.alerts.site import Site
from tests.processes import until
from tests.upstream import Answer, Delay, Events, Gate, Json, Received, Script, chunks, completion, ending

Cause = Callable[[Site], Any]
"""A context manager in which the fault lasts."""
FAULTS: dict[str, "Fault"] = {}


@dataclass(frozen=True)
class Fault:
    """A fault: what happens, and how it is caused."""

    description: str
    cause: Cause


def fault(alert: str, description: str) -> Callable[[Cause], Cause]:
    """Registers a function as the cause of an alert."""

    def register(cause: Cause) -> Cause:
        FAULTS[alert] = Fault(description, contextmanager(cause))
        return cause

    return register


@fault("ParleyTargetUnavailable", "a backend resets every connection of two accounts; its model has a fallback")
def unavailable(site: Site) -> Iterator[None]:
    """The breaker of the target opens."""
    site.upstreams["faulty"].go_down()
    with site.callers("fallback"), site.callers("fallback", key=site.new_key("other")):
        yield
        site.upstreams["faulty"].come_back()
        until(lambda: not site.prometheus.query('parley_breaker_state{state="closed"} == 0'), "a closed breaker")


@fault("ParleyTargetFails", "a backend rejects the operator's key; its model has a fallback")
def failing(site: Site) -> Iterator[None]:
    """The requests to one target fail, and the calls succeed."""
    with _answering(site, Json({"error": {"message": "wrong key"}}, status=401)), site.callers("fallback", 2):
        yield


@fault("ParleyCallsFail", "a backend rejects the operator's key; its model has no fallback")
def rejecting(site: Site) -> Iterator[None]:
    """The calls fail."""
    with _answering(site, Json({"error": {"message": "wrong key"}}, status=401)), site.callers("faulty", 2):
        yield


@fault("ParleyTargetQuotaExhausted", "a vendor reports that the credit is used up")
def unpaid(site: Site) -> Iterator[None]:
    """The answers are those of OpenAI without credit."""
    error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    with _answering(site, Json({"error": error}, status=429)), site.callers("fallback", 2):
        yield


@fault("ParleyBackendKeysLeftOut", "a vendor refuses one of two keys")
def refused_key(site: Site) -> Iterator[None]:
    """Calls go on with the other key."""

    def refuse_first(request: Received) -> Answer:
        is_refused = request.headers["authorization"] == "Bearer first"
        return Json({"error": {"message": "wrong key"}}, status=401) if is_refused else Json(completion())

    with site.callers("keyed", 2):
        with _answering(site, refuse_first):
            yield
        until(lambda: not site.prometheus.query('parley_backend_keys{state="left_out"} > 0'), "a key that works again")


@fault("ParleyGuardFailsOpen", "the service of a guard with on_failure: open is down")
def unchecked(site: Site) -> Iterator[None]:
    """Texts pass without the check."""
    with site.callers("guarded"):
        yield


@fault("ParleyFirstTokenSlow", "a backend takes 6 seconds to its first token")
def slow(site: Site) -> Iterator[None]:
    """Streams begin late."""
    with _answering(site, Events([Delay(6), *chunks("Hello"), *ending()])), site.callers("faulty", 8, stream=True):
        yield


@fault("ParleyTargetFull", "a backend with max_concurrent: 1 does not answer")
def full(site: Site) -> Iterator[None]:
    """Every slot is in use, and further calls wait."""
    with site.callers("slots", 8), site.stalled("slots"):
        yield


@fault("ParleyConnectionsExhausted", "a backend with connections: 1 does not answer")
def exhausted(site: Site) -> Iterator[None]:
    """Calls wait for the only connection."""
    with site.callers("narrow", 8), site.stalled("narrow"):
        yield


@fault("ParleyStoreUnavailable", "the file of the database is moved away")
def lost(site: Site) -> Iterator[None]:
    """The store cannot be read."""
    files = [path for path in (site.folder / "state").glob("parley.db*") if path.is_file()]
    away = site.folder / "away"
    away.mkdir()
    for file in files:
        shutil.move(file, away / file.name)
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
            shutil.move(away / file.name, file)
        away.rmdir()


@fault("ParleyStoreSlow", "another program locks the database for most of the time")
def locked(site: Site) -> Iterator[None]:
    """Commits wait for the lock of SQLite."""
    ended = threading.Event()

    def lock() -> None:
        with sqlite3.connect(site.folder / "state" / "parley.db", isolation_level=None, timeout=10) as database:
            while not ended.wait(0.05):
                with suppress(sqlite3.OperationalError):
                    database.execute("BEGIN IMMEDIATE")
                    time.sleep(0.8)
                    database.execute("ROLLBACK")

    with ThreadPoolExecutor(1) as pool, site.callers("answers", 4):
        pool.submit(lock)
        try:
            yield
        finally:
            ended.set()


@fault("ParleyLeasesLost", "a worker with a running turn is stopped for 15 seconds")
def stopped(site: Site) -> Iterator[None]:
    """Another worker ends the turn meanwhile."""
    gate = Gate()
    site.upstreams["faulty"].answer(Events([*chunks("Hello"), gate, *ending()]))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.call, "faulty", stream=True)
        until(lambda: site.worker_calling("faulty"), "a running turn")
        worker = site.worker_calling("faulty")
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        try:
            time.sleep(15)
        finally:
            os.kill(worker, signal.SIGCONT)
        yield
        gate.set()
        call.result()


@fault("ParleyUsageLost", "a trigger of the database rejects usage")
def rejected(site: Site) -> Iterator[None]:
    """Everything else is written."""
    with closing(sqlite3.connect(site.folder / "state" / "parley.db", isolation_level=None, timeout=10)) as database:
        database.execute("CREATE TRIGGER drill BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'no usage'); END")
        try:
            yield
        finally:
            database.execute("DROP TRIGGER drill")


@fault("ParleyBudgetReached", "an account uses up its tokens_per_day")
def spent(site: Site) -> Iterator[None]:
    """Calls of 12 tokens use up 36."""
    with site.callers("answers", key=site.new_key("spender", "tokens_per_day=36")):
        yield


@fault("ParleyBudgetAlertsUndelivered", "the webhook of budgets answers 410")
def refused_alert(site: Site) -> Iterator[None]:
    """The alert of an account that uses up its tokens_per_day is not sent again."""
    site.webhook.statuses = [410]
    with site.callers("answers", key=site.new_key("unreported", "tokens_per_day=36")):
        yield


@fault("ParleyLimitRejections", "a client calls beyond its requests_per_minute")
def hasty(site: Site) -> Iterator[None]:
    """All but one call of a minute are rejected."""
    with site.callers("answers", 4, key=site.new_key("hasty", "requests_per_minute=1")):
        yield


@fault("ParleyEventLoopLag", "a worker gets a fifth of the CPU time")
def starved(site: Site) -> Iterator[None]:
    """The worker is stopped for four fifths of the time."""
    worker, ended = site.parley.workers()[0], threading.Event()

    def starve() -> None:
        while not ended.wait(0.1):
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(worker, signal.SIGCONT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(starve)
        try:
            yield
        finally:
            ended.set()


@fault("ParleyWorkerMemory", "calls with 6 MB each wait for a backend; parley reload ends it")
def large(site: Site) -> Iterator[None]:
    """The workers hold the requests."""
    before = set(site.parley.workers())
    with site.stalled("faulty"), ThreadPoolExecutor(4) as pool:
        messages = [{"role": "user", "content": "x" * 6_000_000}]
        for _ in range(4):
            pool.submit(site.call, "faulty", messages=messages)
        yield
        site.upstreams["faulty"].go_down()
    site.upstreams["faulty"].come_back()
    site.parley.process.send_signal(signal.SIGHUP)
    until(lambda: len(set(site.parley.workers()) - before) == 2, "the new workers")
    until(lambda: not before & set(site.parley.workers()), "the end of the replaced workers")


@fault("ParleyConfigNotInUse", "the configuration file has an error; parley reload ends it")
def invalid(site: Site) -> Iterator[None]:
    """A reload fails."""
    file = site.folder / "parley.yaml"
    before = file.read_text()
    file.write_text(f"{before}unknown: 1\n")
    site.parley.process.send_signal(signal.SIGHUP)
    try:
        yield
    finally:
        file.write_text(before)
        site.parley.process.send_signal(signal.SIGHUP)


@fault("ParleyLogLinesLost", "the program that reads the log is stopped")
def unread(site: Site) -> Iterator[None]:
    """The pipe of the log is full."""
    site.log_reader.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        site.log_reader.send_signal(signal.SIGCONT)


@fault("ParleyDescriptors", "the limit of open files is lowered")
def few(site: Site) -> Iterator[None]:
    """A worker has opened nine tenths of its descriptors."""
    worker = site.parley.workers()[0]
    used = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used * 10 // 9, before[1]))
    try:
        yield
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)


@fault("ParleyEdgeHeap", "large requests wait in Envoy")
def swollen(site: Site) -> Iterator[None]:
    """Envoy keeps the bodies of running calls."""
    with ThreadPoolExecutor(6) as pool, site.stalled("faulty"):
        messages = [{"role": "user", "content": "x" * 6_000_000}]
        for _ in range(6):
            pool.submit(site.call, "faulty", messages=messages)
        yield


@fault("ParleyWorkerRestarts", "the workers are killed three times")
def killed(site: Site) -> Iterator[None]:
    """Each time, Parley starts others."""
    for _ in range(3):
        site.replace_workers()
    yield


@fault("ParleyEdgeRestarts", "Envoy is killed three times")
def envoy_killed(site: Site) -> Iterator[None]:
    """Each time, Parley starts another."""
    for _ in range(3):
        until(lambda: site.prometheus.query("envoy_server_uptime > 2"), "an Envoy that runs for a while")
        os.kill(next(pid for pid, line in site.parley.children().items() if "envoy" in line), signal.SIGKILL)
        until(lambda: site.prometheus.query("envoy_server_uptime < 2"), "another Envoy")
    yield


@fault("ParleyEdgeWithoutWorkers", "the workers are killed again and again")
def crashing(site: Site) -> Iterator[None]:
    """No worker lives long enough to serve."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            for pid in site.parley.workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(kill)
        try:
            yield
        finally:
            ended.set()


@fault("ParleyNoWorker", "Parley is stopped")
def absent(site: Site) -> Iterator[None]:
    """Nothing reports metrics."""
    site.stop()
    try:
        yield
    finally:
        site.start()


@fault("ParleyDown", "Parley is stopped")
def down(site: Site) -> Iterator[None]:
    """Nothing answers scrapes."""
    yield from absent(site)


@contextmanager
def _answering(site: Site, answer: Script) -> Iterator[None]:
    """Has the faulty upstream give this answer."""
    upstream = site.upstreams["faulty"]
    before, upstream.default = upstream.default, answer
    try:
        yield
    finally:
        upstream.default = before
