"""`parley top`: a live view of the running service: its targets and its calls."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.options import StateDirOption
from parley.cli.shared.terminal import without_control_characters

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_REFRESH_SECONDS = 1.0
_FEW_ROWS = 5  # of calls, in a low terminal


def top(
    *,
    once: Annotated[bool, Parameter(name="--once", negative=(), help="Print one view and exit.")] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Show calls, tokens a second, targets, breakers and sessions live. Ctrl-C exits."""
    from rich.console import Console
    from rich.live import Live

    console, view = Console(), _View(state_dir)
    if once:
        view.read()
        time.sleep(_REFRESH_SECONDS)  # a rate needs two readings
        view.read()
        console.print(view.render(len(view.calls)))
        return
    view.read()
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            rows = max(_FEW_ROWS, console.height - len(view.targets) - 6)
            live.update(view.render(rows), refresh=True)
            time.sleep(_REFRESH_SECONDS)
            view.read()


class _View:
    """The state of the service at the latest reading, and the tokens since the one before."""

    def __init__(self, state_dir: Path | None) -> None:
        self._state_dir = state_dir
        self.targets: list[Any] = []
        self.calls: list[Any] = []
        self._rate = 0.0
        self._tokens: dict[tuple[str, str], int] = {}
        self._time = time.monotonic()

    def read(self) -> None:
        """Reads targets and calls. Raises CommandError."""
        self.targets = list(operating.call(self._state_dir, "ListTargets", messages.ListTargetsRequest()).targets)
        self.calls = list(operating.call(self._state_dir, "ListCalls", messages.ListCallsRequest()).calls)
        now = time.monotonic()
        tokens = {(call.worker, call.request_id): call.tokens for call in self.calls}
        added = sum(max(0, count - self._tokens.get(key, 0)) for key, count in tokens.items())
        self._rate = added / max(now - self._time, 0.001)
        self._tokens, self._time = tokens, now

    def render(self, rows: int) -> "Group":
        """Returns the view with at most so many calls, the oldest."""
        from rich.console import Group
        from rich.text import Text

        sessions = len({call.session_id for call in self.calls if call.session_id})
        opened = sum(bool(target.workers_open) for target in self.targets)
        head = (
            f"{len(self.calls)} calls   {self._rate:.0f} tokens/s   {sessions} sessions in use   "
            f"{len(self.targets)} targets, {opened} open"
        )
        return Group(Text(head, style="bold"), Text(), self._target_table(), Text(), self._call_table(rows))

    def _target_table(self) -> "Table":
        cells = [
            (target.name, operating.state(target), target.cause, operating.load(target), operating.weight(target))
            for target in self.targets
        ]
        return _table(("Target", "Breaker", "Cause", "Calls", "Weight"), cells)

    def _call_table(self, rows: int) -> "Table":
        cells = [
            (
                call.request_id[:8],
                call.account,
                call.model or call.method,
                call.target,
                f"{call.age:.0f} s",
                str(call.tokens),
                call.session_id[-8:],
            )
            for call in self.calls[:rows]
        ]
        return _table(("Request", "Account", "Model", "Target", "Age", "Tokens", "Session"), cells)


def _table(names: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> "Table":
    """Returns a table that fits the terminal: what is too long for its column is cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        is_number = name in {"Calls", "Weight", "Age", "Tokens"}
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if is_number else "left")
    for row in cells:
        table.add_row(*(Text(without_control_characters(cell)) for cell in row))
    return table
