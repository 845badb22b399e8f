"""Ctrl-C in commands that call gRPC."""

import signal
from collections.abc import Iterator

import pytest

from parley.cli.shared.interrupts import Interrupts


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Restores the default handler of SIGINT, which a shell in the background replaces."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Finalized:
    """Is interrupted while it is finalized, as the call of gRPC may be that Python's garbage collector removes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_ignores_is_raised_again() -> None:
    """A KeyboardInterrupt in a finalizer is ignored by Python; it is raised again at the end of the block, once."""
    steps = []

    def run(interrupts: Interrupts) -> None:
        with interrupts.interruptible():
            Finalized()
            steps.append("in the block")

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            run(interrupts)
        with interrupts.interruptible():
            steps.append("afterwards")
    assert ["in the block", "afterwards"] == steps
