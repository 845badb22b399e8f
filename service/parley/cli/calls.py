"""`parley calls`: lists the running calls of the service, cancels one, and shows the log lines of one."""

import json as jsons
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.key_output import print_json
from parley.cli.shared.options import JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table, without_control_characters
from parley.supervisor.errors import CommandError

app = App(
    name="calls",
    help="List the running calls of the service, the oldest first; cancel one; show the log lines of one.",
    help_epilogue="Examples:\n"
    "  parley calls --account acme\n"
    "  parley calls cancel 7df96f36-e7c5-406c-8079-61849692df27\n"
    "  parley calls log 7df96f36-e7c5-406c-8079-61849692df27",
    help_format="plaintext",
)


@app.default
def calls(
    *,
    account: Annotated[str | None, Parameter(name="--account", help="Only calls of this account.")] = None,
    model: Annotated[str | None, Parameter(name="--model", help="Only calls of this model.")] = None,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
) -> None:
    """List the running calls of the service, the oldest first; cancel one."""
    request = messages.ListCallsRequest(account=account, model=model)
    answer = operating.call(state_dir, "ListCalls", request)
    if json:
        print_json([operating.fields(call) for call in answer.calls])
        return
    rows = [
        (
            call.request_id,
            call.account,
            call.key,
            call.model or call.method,
            call.target,
            f"{call.age:.1f} s",
            str(call.tokens),
            call.session_id,
        )
        for call in answer.calls
    ]
    names = ("Request", "Account", "Key", "Model", "Target", "Age", "Tokens", "Session")
    folded = ("Request", "Account", "Key", "Model", "Target", "Session")
    print_table(names, rows, folded=folded, numbers=("Age", "Tokens"))


@app.command(help_epilogue="Example:\n  parley calls cancel 7df96f36-e7c5-406c-8079-61849692df27")
def cancel(
    request_id: Annotated[str, Parameter(name="REQUEST", help="The id of the request, as `parley calls` shows it.")],
    /,
    *,
    state_dir: StateDirOption = None,
) -> None:
    """Cancel a running call. Its caller gets the error CALL_CANCELLED, and its turn is kept as incomplete."""
    answer = operating.call(state_dir, "CancelCall", messages.CancelCallRequest(request_id=request_id))
    if not answer.calls:
        raise CommandError(f'no running call has the id "{request_id}"; see `parley calls`')
    print(without_control_characters(f"Cancelled {request_id}."))


@app.command(help_epilogue="Example:\n  parley calls log 7df96f36-e7c5-406c-8079-61849692df27")
def log(
    request_id: Annotated[str, Parameter(name="REQUEST", help="The id of the request: `x-request-id` of its answer.")],
    /,
    *,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
) -> None:
    """Show the log lines of a call that has ended, as far as a worker still has them in memory."""
    answer = operating.call(state_dir, "ListCallLogLines", messages.ListCallLogLinesRequest(request_id=request_id))
    lines: list[Mapping[str, Any]] = [jsons.loads(line.line) for line in reversed(answer.lines)]
    if not lines:
        raise CommandError(
            f'no worker has a log line of the request "{request_id}" in memory, which has the latest '
            "768 KiB of each worker, and no line of more than 16 KiB; the log itself has all that its level permits"
        )
    if json:
        print_json(lines)
        return
    print("\n\n".join("\n".join(_field_lines(line)) for line in lines))


def _field_lines(line: Mapping[str, Any]) -> Iterator[str]:
    """Yields a field of a log line at a time, for the terminal."""
    width = max(map(len, line))
    for name, value in line.items():
        text = value if isinstance(value, str) else jsons.dumps(value, ensure_ascii=False)
        yield f"{name:{width}}  {without_control_characters(text)}"
