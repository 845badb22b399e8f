"""Which messages of a request are new to its session, if the request may repeat the history. Pure functions.

A request contains only the new messages, or the history followed by the new messages. The rules:

- A request that starts with all stored messages repeats them; the rest is new.
- A request that starts with the end of the stored messages, at least one answer included, repeats them: clients trim
  long histories at the front. The rest is new.
- Any other request that contains an answer and repeats some of the stored messages contradicts the session and is
  rejected: a stored message was edited, or messages are missing.
- All messages of any other request are new. In particular, a request without an assistant message is always new: a
  user may send the same text twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parley.core.errors import InvalidRequest
from parley.core.messages.equivalence import fingerprint, is_empty, is_equivalent
from parley.core.messages.roles import is_system
from parley.v1.message_pb2 import Message

_MAX_OVERLAPS = 16  # positions that are tried as the end of a trimmed history
_REMEDY = "send only what is new, resend the history unchanged, or fork the session"


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """The messages of a session's completed turns that a request can repeat.

    Attributes:
        first: The first messages without system messages: all, or as many as the request has.
        latest: The last messages without system messages: all, or as many as the request has.
        system: The system messages.
        is_complete: Whether `first` contains all messages except the system messages.
    """

    first: Sequence[Message]
    latest: Sequence[Message]
    system: Sequence[Message]
    is_complete: bool


def may_repeat(sent: Sequence[Message]) -> bool:
    """Returns whether a request may repeat its session: only a request that contains an answer does."""
    return any(message.role == "assistant" for message in sent)


def new_messages(stored: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages of `sent` that are new to a session with the messages `stored`.

    Raises:
        InvalidRequest: The request contradicts the session, or repeats it without a new message.
    """
    if len(stored) <= len(sent) and all(map(is_equivalent, stored, sent)):
        return _rest(sent, len(stored), [])
    counted = [message for message in stored if not is_system(message)]
    return new_to(StoredHistory(counted, counted, list(filter(is_system, stored)), is_complete=True), sent)


def new_to(stored_history: StoredHistory, sent: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages of `sent` that are new to a session with this history.

    System messages do not decide whether a request repeats the history, because their text may change between turns,
    for example a date. Changed system messages are new.

    Raises:
        InvalidRequest: The request contradicts the session, or repeats it without a new message.
    """
    first, latest = list(filter(_counts, stored_history.first)), list(filter(_counts, stored_history.latest))
    positions = [position for position, message in enumerate(sent) if _counts(message)]
    counted = [sent[position] for position in positions]
    repeated = (_start(first, counted) if stored_history.is_complete else 0) or _end(latest, counted)
    if repeated:
        end = positions[repeated - 1] + 1
        return _rest(sent, end, _unknown(stored_history.system, filter(is_system, sent[:end])))
    if _contradicts([*first, *latest], counted):
        raise _contradiction(first, counted, positions)
    return sent


def without_known_system(system: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Removes the leading system messages that the session already contains, unless no message would remain."""
    leading = next((position for position, message in enumerate(sent) if not is_system(message)), len(sent))
    return [*_unknown(system, sent[:leading]), *sent[leading:]] or sent


def _counts(message: Message) -> bool:
    """Returns whether a message takes part in the comparison."""
    return not is_system(message) and not is_empty(message)


def _start(first: Sequence[Message], counted: Sequence[Message]) -> int:
    """Returns the length of `first` if `counted` starts with all of it, otherwise 0."""
    return len(first) if len(first) <= len(counted) and all(map(is_equivalent, first, counted)) else 0


def _end(latest: Sequence[Message], counted: Sequence[Message]) -> int:
    """Returns how many messages of `counted`, at least one answer included, repeat the end of `latest`, or 0."""
    if not latest:
        return 0
    longest = min(len(latest), len(counted))
    ends = [count for count in range(longest, 0, -1) if is_equivalent(counted[count - 1], latest[-1])]
    for count in ends[:_MAX_OVERLAPS]:
        if may_repeat(counted[:count]) and all(map(is_equivalent, counted[:count], latest[-count:])):
            return count
    return 0


def _rest(sent: Sequence[Message], end: int, changed: Sequence[Message]) -> Sequence[Message]:
    """Returns the changed system messages and the messages after the repeated ones.

    Raises:
        InvalidRequest: No message is new.
    """
    while 0 < end < len(sent) and is_empty(sent[end]):
        end += 1
    new = [*changed, *sent[end:]]
    # Without an answer the request may be a new message with the same text.
    if new or not may_repeat(sent):
        return new or sent
    message = "`messages` only repeats what the session has already; send a new message"
    raise InvalidRequest(message, param="messages")


def _contradicts(stored: Sequence[Message], counted: Sequence[Message]) -> bool:
    """Returns whether `counted`, which does not repeat the session, contains an answer and some stored messages."""
    answers = [number for number, message in enumerate(counted) if message.role == "assistant"]
    if not answers:
        return False
    # A final assistant message may be a prefill: the messages before it are then not necessarily history.
    is_past = answers[-1] < len(counted) - 1
    history = counted[: answers[-1] + 1] if is_past else [counted[number] for number in answers]
    known = {key for message in stored if (key := fingerprint(message)) is not None}
    return not known.isdisjoint(map(fingerprint, history))


def _contradiction(first: Sequence[Message], counted: Sequence[Message], positions: Sequence[int]) -> InvalidRequest:
    """Returns the error that names the first message that differs from the stored one."""
    pairs = enumerate(zip(first, counted, strict=False))
    differing = next((number for number, (stored, message) in pairs if not is_equivalent(stored, message)), None)
    if differing is None:
        param = f"messages[{positions[-1]}]"
        message = f"`messages` ends with `{param}`, but the session's history goes on from there"
    else:
        param = f"messages[{positions[differing]}]"
        message = f"`{param}` is not what the session has at this place of its history"
    return InvalidRequest(f"{message}; {_REMEDY}", param=param)


def _unknown(known: Sequence[Message], messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if not any(is_equivalent(message, one) for one in known)]
