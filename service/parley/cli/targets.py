"""`parley targets`: shows the targets of the running service, opens and closes their breakers, and sets weights."""

from typing import Annotated

from cyclopts import App, Parameter

from parley.admin.v1 import operations_pb2 as messages
from parley.cli.shared import operating
from parley.cli.shared.key_output import print_json
from parley.cli.shared.options import JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table, without_control_characters
from parley.supervisor.errors import CommandError

app = App(
    name="targets",
    help="Show the targets of the Parley on this machine with their breakers; open, close and weight them.",
    help_epilogue="Examples:\n"
    "  parley targets\n"
    "  parley targets open vllm/qwen3-8b\n"
    "  parley targets close vllm/qwen3-8b\n"
    "  parley targets weight vllm/qwen3-8b 0.5",
    help_format="plaintext",
)

TargetName = Annotated[str, Parameter(name="NAME", help="The target, as `parley targets` shows it.")]


@app.default
def targets(*, json: JsonOption = False, state_dir: StateDirOption = None) -> None:
    """Show the targets of the Parley on this machine with their breakers; open, close and weight them."""
    answer = operating.call(state_dir, "ListTargets", messages.ListTargetsRequest())
    if json:
        print_json([operating.fields(target) for target in answer.targets])
        return
    rows = [
        (
            target.name,
            operating.state(target),
            target.cause,
            f"{target.admits_in:.0f} s" if target.HasField("admits_in") else "",
            operating.load(target),
            operating.weight(target),
        )
        for target in answer.targets
    ]
    names = ("Target", "Breaker", "Cause", "Admits in", "Calls", "Weight")
    print_table(names, rows, folded=("Target", "Breaker", "Cause"), numbers=("Admits in",))


@app.command(name="open", help_epilogue="Example:\n  parley targets open vllm/qwen3-8b")
def open_(name: TargetName, /, *, state_dir: StateDirOption = None) -> None:
    """Send a target no calls, until it is closed or Parley restarts. Running calls go on."""
    _print(operating.call(state_dir, "OpenTarget", messages.OpenTargetRequest(name=name)))


@app.command(help_epilogue="Example:\n  parley targets close vllm/qwen3-8b")
def close(name: TargetName, /, *, state_dir: StateDirOption = None) -> None:
    """Close the breakers of a target, whatever opened them."""
    _print(operating.call(state_dir, "CloseTarget", messages.CloseTargetRequest(name=name)))


@app.command(
    help_epilogue="Examples:\n  parley targets weight vllm/qwen3-8b 0.5\n  parley targets weight vllm/qwen3-8b --clear"
)
def weight(
    name: TargetName,
    value: Annotated[
        float | None, Parameter(name="WEIGHT", help="The weight. With 0, it gets what no other target takes.")
    ] = None,
    /,
    *,
    clear: Annotated[bool, Parameter(name="--clear", negative=(), help="Use the configured weight again.")] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Set the weight of a target, until it is cleared or Parley restarts."""
    if clear is (value is not None):
        raise CommandError("give either WEIGHT or --clear")
    _print(operating.call(state_dir, "SetTargetWeight", messages.SetTargetWeightRequest(name=name, weight=value)))


def _print(target: messages.Target) -> None:
    text = f"{target.name}: breaker {operating.state(target)}, weight {operating.weight(target)}"
    print(without_control_characters(text))
