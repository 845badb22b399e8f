"""What `/usage`, `/receipt`, `/model` and `/session` print."""

from collections.abc import Iterable
from datetime import datetime

from parley.cli.chat.conversation import Conversation
from parley.cli.shared import receipts
from parley.cli.shared.terminal import print_table, without_control_characters
from parley.core.messages.proto_json import from_message
from parley_client import Completion
from parley_client.v1.models_pb2 import Model
from parley_client.v1.sessions_pb2 import Session
from parley_client.v1.usage_pb2 import UsageReport, UsageRow


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
    """Prints the models; `*` marks the current one."""
    rows = [("*" if model.id == current else "", model.id, model.owned_by) for model in models]
    print_table(("", "ID", "Backend"), rows, folded=("ID",))


def print_sessions(sessions: Iterable[Session], current: str | None) -> None:
    """Prints sessions; `*` marks the current one."""
    rows = [
        (
            "*" if session.id == current else "",
            session.id,
            session.model,
            str(session.turn_count),
            datetime.fromtimestamp(session.updated).astimezone().strftime("%Y-%m-%d %H:%M"),
        )
        for session in sessions
    ]
    print_table(("", "ID", "Model", "Turns", "Latest turn"), rows, folded=("Model",), numbers=("Turns",))
