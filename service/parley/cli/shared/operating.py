"""Calls of commands to the running service, over its admin socket."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from parley.rpc.admin_client import AdminCallFailed, OperationsClient
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import default_state_dir

_SOCKET = "admin.sock"


def folder(state_dir: Path | None) -> Path:
    """Returns the state folder."""
    return (state_dir or default_state_dir()).expanduser().absolute()


def is_running(folder: Path) -> bool:
    """Returns whether the service of a state folder has an admin socket."""
    return (folder / _SOCKET).exists()


def call(state_dir: Path | None, method: str, request: Message) -> Any:
    """Calls a method of the running service. Prints the names of workers that did not answer. Raises CommandError."""
    found = folder(state_dir)
    socket = found / _SOCKET
    if not is_running(found):
        raise CommandError(f"{found} has no running service; start `parley up`, or name its folder with --state-dir")
    try:
        answer = OperationsClient(socket).call(method, request)
    except AdminCallFailed as error:
        raise CommandError(str(error)) from error
    warn_unreachable(getattr(answer, "unreachable_workers", ()))
    return answer


def warn_unreachable(workers: Sequence[str]) -> None:
    """Prints the workers that an answer lacks."""
    if workers:
        print(f"parley: no answer from {', '.join(workers)}: the state of these workers is missing", file=sys.stderr)


def fields(message: Message) -> dict[str, Any]:
    """Returns a message as JSON values."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def state(target: Any) -> str:
    """Returns the state of a target's breaker in words."""
    if target.opened:
        return "open (operator)"
    words = {1: "closed", 2: "open", 3: "half open"}[target.breaker]
    if target.workers_open and target.workers > 1:
        words += f" in {target.workers_open}/{target.workers}"
    if target.callers_open:
        words += f", {target.callers_open} callers"
    if target.keys_left_out:
        words += f", {target.keys_left_out}/{target.keys} keys left out"
    return f"{words}, unhealthy" if target.unhealthy else words


def weight(target: Any) -> str:
    """Returns the weight of a target, with the configured one if another is set."""
    if not target.HasField("weight_override"):
        return f"{target.weight:g}"
    return f"{target.weight_override:g} (not {target.weight:g})"


def load(target: Any) -> str:
    """Returns the running calls of a target, with the most at a time."""
    text = f"{target.calls}/{target.max_calls}" if target.HasField("max_calls") else str(target.calls)
    return f"{text} +{target.queued}" if target.queued else text
