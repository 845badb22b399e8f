"""No call fails in a rollout, for every client setting that is documented.

All clients call two pods while one thing after another happens to a pod. ROLLOUT_CALLS_PER_SECOND (default 20) sets the
load.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node_packages import installed
from tests.e2e.rollouts.pods import Clients, clients, slow, two_pods
from tests.upstream import ScriptedUpstream

__all__ = ["installed"]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Clients]:
    """The clients after all phases."""
    folder = tmp_path_factory.mktemp("rollouts")
    with ScriptedUpstream() as upstream:
        upstream.default = slow
        with two_pods(folder, upstream.url) as (first, second), clients(first, second, folder, installed) as running:
            running.begin("start")
            running.settle()
            running.begin("reload")
            first.hang_up()
            running.settle()
            running.begin("end of a pod")
            second.terminate()
            running.begin("start of a pod")
            second.start_again()
            running.settle()
            running.begin("kill of a worker")
            first.kill_worker()
            running.begin("after the kill")
            running.settle()
            running.finish()
            yield running


@pytest.mark.parametrize("phase", ["start", "reload", "end of a pod", "start of a pod"])
def test_a_rollout_fails_no_call(observed: Clients, phase: str) -> None:
    """SIGHUP, SIGTERM of one of two pods and its return fail no call of any client setting, whole or streamed."""
    assert [] == observed.failures(phase)


def test_a_killed_worker_fails_only_calls_that_had_begun(observed: Clients) -> None:
    """Calls after the end of the worker succeed at the other one."""
    noticed = dict(observed.marks)["after the kill"]
    failed = [call for phase in ("kill of a worker", "after the kill") for call in observed.failures(phase)]
    assert [] == [call for call in failed if call.started > noticed]


def test_calls_with_a_key_and_the_recommended_policy_survive_the_kill_of_a_worker(observed: Clients) -> None:
    """The library repeats a call once its key is free; the client, as parley-client does, a stream that has begun."""
    failed = [call for phase in ("kill of a worker", "after the kill") for call in observed.failures(phase)]
    assert [] == [call for call in failed if call.setting in {"recommended", "parley-client"}]
