"""Ctrl-C in a command that calls gRPC from its main thread."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Handles SIGINT inside its `with` block, in the main thread.

    Python may raise KeyboardInterrupt between any two instructions. Inside gRPC, that can leave a lock acquired or
    released twice (bpo-29988), after which the channel hangs or fails. Therefore, the handler raises only inside an
    `interruptible` block. Elsewhere it cancels the call and leaves the interrupt pending. gRPC's locks are reentrant,
    so cancelling a call is safe in a signal handler.
    """

    def __init__(self) -> None:
        self._pending = False
        self._raises = False
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        self._previous = signal.getsignal(signal.SIGINT)
        if self._previous is not signal.SIG_IGN:  # as shells start a background job
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def cancel_with(self, cancel: Callable[[], object]) -> None:
        """Sets the function that cancels the current call. Calls it at once if an interrupt is pending."""
        self._cancel = cancel
        if self._pending:
            cancel()

    def raise_pending(self) -> None:
        """Raises KeyboardInterrupt if an interrupt is pending, and clears it."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raises KeyboardInterrupt for a pending interrupt, and for one that comes inside the block.

        Python ignores what is raised in a finalizer, which may run anywhere. So the interrupt stays pending until
        `acknowledge`, and is raised again at the end of the block.
        """
        self._raises = True
        try:
            self.raise_pending()
            yield
            self._raises = False
            self.raise_pending()
        finally:
            self._raises = False

    def acknowledge(self) -> None:
        """Clears the pending interrupt, after its KeyboardInterrupt was caught."""
        self._pending = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._pending = True
        if self._raises:
            self._raises = False  # a second one must not be raised while the first closes the call
            raise KeyboardInterrupt
        if self._cancel is not None:
            self._cancel()
