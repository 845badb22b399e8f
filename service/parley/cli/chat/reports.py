"""What `/usage`, `/receipt`, `/model` and `/session` print."""

from collections.abc import Iterable
from datetime import datetime

from parley.cli.chat.conversation import Conversation
from parley.cli.shared import receipts
from parley.cli.shared.prose import print_wrapped
from parley.cli.shared.terminal import print_table, without_control_characters
from parley.core.messages.proto_json import from_message
from parley_client import Completion
from parley_client.v1.models_pb2 import Model
from parley_client.v1.sessions_pb2 import Session
from parley_client.v1.usage_pb2 import UsageReport, UsageRow

_MILLION = 10**6
_THOUSAND = 1000


def conversation_usage(conversation: Conversation) -> str:
    """Returns the tokens of the conversation's answers since the command began."""
    answers = conversation.answers
    prompt = sum(answer.usage.prompt_tokens for answer in answers)
    completion = sum(answer.usage.completion_tokens for answer in answers)
    cost = sum(answer.receipt.cost for answer in answers if answer.receipt is not None)
    money = f", cost {receipts.money(cost)}" if cost else ""
    count = "1 answer" if len(answers) == 1 else f"{len(answers)} answers"
    return f"This chat: {count}, {prompt} prompt and {completion} completion tokens{money}."


def print_usage(report: UsageReport) -> None:
    """Prints the usage of the key by model, and its total."""
    rows = [_usage_row(row.model, row) for row in report.data]
    if len(rows) > 1:
        rows.append(_usage_row("total", report.total))
    names = ("Model", "Calls", "Errors", "Prompt", "Completion", "Cost")
    print_table(names, rows, folded=("Model",), numbers=names[1:])


def _usage_row(name: str, row: UsageRow) -> tuple[str, ...]:
    numbers = (row.calls, row.errors, row.prompt_tokens, row.completion_tokens)
    return name, *(f"{number:.0f}" for number in numbers), receipts.money(row.cost)


def receipt_lines(answer: Completion) -> list[str]:
    """Returns a line for each attempt of an answer, then its first token, duration and request id."""
    if answer.receipt is None:
        return ["The answer was stored before: it has no receipt."]
    fields = from_message(answer.receipt)
    first = [one["first_token_ms"] + one["started_ms"] for one in fields.get("attempts", []) if "first_token_ms" in one]
    facts = [f"first token after {min(first)} ms"] if first else []
    facts += [f"{fields['duration_ms']} ms in all"] if "duration_ms" in fields else []
    facts += [f"request {without_control_characters(answer.request_id)}"] if answer.request_id else []
    return [*receipts.lines(fields), ", ".join(facts)]


def print_models(models: Iterable[Model], current: str | None) -> None:
    """Prints the models and what is known of them; `*` marks the current one."""
    rows = [("*" if model.id == current else "", model.id, model.owned_by, _known(model)) for model in models]
    columns = 4 if any(row[-1] for row in rows) else 3
    print_table(("", "ID", "Backend", "Known")[:columns], [row[:columns] for row in rows], folded=("ID", "Known"))


def _known(model: Model) -> str:
    """Returns what is known of a model, for example `131k context, image, tools, 0.25 + 2.00 a million tokens`."""
    facts = [f"{_thousands(model.context_length)} context"] if model.context_length else []
    if limit := model.top_provider.max_completion_tokens:
        facts.append(f"{_thousands(limit)} answer")
    facts += [one for one in model.architecture.input_modalities if one != "text"]
    facts += [one for one in ("tools", "reasoning") if one in model.supported_parameters]
    if model.HasField("pricing"):
        prompt, completion = (receipts.money(float(one) * _MILLION) for one in _prices(model))
        facts.append(f"{prompt} + {completion} a million tokens")
    return ", ".join([*facts, *(f"also {alias.id}" for alias in model.aliases)])


def _prices(model: Model) -> tuple[str, str]:
    return model.pricing.prompt or "0", model.pricing.completion or "0"


def _thousands(number: int) -> str:
    return f"{number // 1000}k" if number >= _THOUSAND else str(number)


def print_sessions(sessions: Iterable[Session], current: str | None) -> None:
    """Prints sessions with their titles, the latest turn first; `*` marks the current one."""
    found = list(sessions)
    for session in found:
        moment = datetime.fromtimestamp(session.updated).astimezone().strftime("%Y-%m-%d %H:%M")
        facts = f"{session.id}  {moment}, {session.model}, {turns(session.turn_count)}"
        print_wrapped(f"{'*' if session.id == current else ' '} {facts}", indent=2)
        if session.title:
            print_wrapped(f"  {session.title}", indent=2)
    if not found:
        print_wrapped("There are no such sessions.")


def turns(count: int) -> str:
    """Returns the number of turns with the noun."""
    return "1 turn" if count == 1 else f"{count} turns"
