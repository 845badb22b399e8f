"""`/save`: writes a conversation to a file, as Markdown or as JSON Lines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parley.cli.chat.conversation import Conversation, message_text
from parley.supervisor.errors import CommandError

_HEADINGS = {"user": "You", "assistant": "Model"}


def save(conversation: Conversation, name: str) -> Path:
    """Writes all messages to a new file, and returns its path. Raises CommandError, ParleyError.

    Args:
        conversation: The conversation.
        name: The path; with the suffix `.jsonl`, it becomes JSON Lines. Empty for a name of the session's id.
    """
    conversation.load()
    if not conversation.history:
        raise CommandError("there is nothing to save yet; send a question first")
    path = Path(name or f"chat-{(conversation.session or 'new')[-12:]}.md").expanduser()
    messages = [("system", conversation.system)] if conversation.system else []
    messages += [(_role(one), message_text(one)) for one in conversation.history]
    text = _lines(messages) if path.suffix == ".jsonl" else _markdown(messages, conversation)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} exists; name another file") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}); name another file") from error
    return path


def _role(message: Any) -> str:
    return str(message["role"] if isinstance(message, dict) else message.role)


def _lines(messages: Sequence[tuple[str, str]]) -> str:
    return "".join(json.dumps({"role": role, "content": text}, ensure_ascii=False) + "\n" for role, text in messages)


def _markdown(messages: Sequence[tuple[str, str]], conversation: Conversation) -> str:
    facts = [conversation.model or "", f"session {conversation.session}" if conversation.session else ""]
    parts = [f"# Chat\n\n{', '.join(filter(None, facts))}".rstrip()]
    parts += [f"## {_HEADINGS.get(role, role.capitalize())}\n\n{text.strip()}" for role, text in messages]
    return "\n\n".join(parts) + "\n"
