"""Which of a request's messages are new to its session, where it may repeat the history. Pure functions.

A request may have the new messages alone, or all of the history before them. The rule:

- A request that starts with everything that the session has repeats it; the rest is new.
- A request that starts with the end of what the session has, an answer included, repeats that: clients cut long
  histories at the front. The rest is new.
- Any other request that repeats some of the session's messages and has an answer among its messages contradicts the
  session, and is refused: a past message was edited, or messages are missing.
- Everything else is new as it is. In particular a request without an assistant message is always new: a user may say
  the same twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parley.core.errors import InvalidRequest
from parley.core.messages.equivalence import fingerprint, is_empty, same
from parley.core.messages.roles import is_system
from parley.v1.message_pb2 import Message

_MOST_ENDS = 16  # places that are tried as the end of a shortened history
_REMEDY = "send only what is new, resend the history unchanged, or fork the session"


@dataclass(frozen=True, slots=True)
class Past:
    """The messages of a session's completed turns, as far as a request can repeat them.

    Attributes:
        first: The first messages without system messages: all, or as many as the request has.
        latest: The last messages without system messages: all, or as many as the request has.
        standing: The system messages.
        is_whole: Whether `first` has all messages that are no system messages.
    """

    first: Sequence[Message]
    latest: Sequence[Message]
    standing: Sequence[Message]
    is_whole: bool


def may_repeat(sent: Sequence[Message]) -> bool:
    """Reports whether a request is to be compared with its session: only one with an answer can repeat it."""
    return any(message.role == "assistant" for message in sent)


def new_messages(stored: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages of `sent` that are new to a session that has the messages `stored`.

    Raises:
        InvalidRequest: The request contradicts the session, or repeats it and adds nothing.
    """
    if len(stored) <= len(sent) and all(map(same, stored, sent)):
        return _rest(sent, len(stored), [])
    spoken = [message for message in stored if not is_system(message)]
    return new_to(Past(spoken, spoken, list(filter(is_system, stored)), is_whole=True), sent)


def new_to(past: Past, sent: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages of `sent` that are new to a session with this past.

    System messages do not decide whether a request repeats the history: they may have changed, as those do that have
    the date. Those that have changed are new.

    Raises:
        InvalidRequest: The request contradicts the session, or repeats it and adds nothing.
    """
    first, latest = list(filter(_counts, past.first)), list(filter(_counts, past.latest))
    places = [place for place, message in enumerate(sent) if _counts(message)]
    said = [sent[place] for place in places]
    repeated = (_start(first, said) if past.is_whole else 0) or _end(latest, said)
    if repeated:
        end = places[repeated - 1] + 1
        return _rest(sent, end, _unknown(past.standing, filter(is_system, sent[:end])))
    if _contradicts([*first, *latest], said):
        raise _contradiction(first, said, places)
    return sent


def without_known(standing: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Leaves out those of the leading system messages that the session has already, unless nothing else is left."""
    leading = next((place for place, message in enumerate(sent) if not is_system(message)), len(sent))
    return [*_unknown(standing, sent[:leading]), *sent[leading:]] or sent


def _counts(message: Message) -> bool:
    """Reports whether a message takes part in the comparison."""
    return not is_system(message) and not is_empty(message)


def _start(first: Sequence[Message], said: Sequence[Message]) -> int:
    """Returns how many of `said` repeat all of `first`; 0 where they do not."""
    return len(first) if len(first) <= len(said) and all(map(same, first, said)) else 0


def _end(latest: Sequence[Message], said: Sequence[Message]) -> int:
    """Returns how many of `said` repeat the end of `latest`, an answer among them; 0 for none."""
    if not latest:
        return 0
    longest = min(len(latest), len(said))
    ends = [count for count in range(longest, 0, -1) if same(said[count - 1], latest[-1])]
    for count in ends[:_MOST_ENDS]:
        if may_repeat(said[:count]) and all(map(same, said[:count], latest[-count:])):
            return count
    return 0


def _rest(sent: Sequence[Message], end: int, changed: Sequence[Message]) -> Sequence[Message]:
    """Returns what follows the repeated messages, after the system messages among them that have changed.

    Raises:
        InvalidRequest: That is nothing.
    """
    while 0 < end < len(sent) and is_empty(sent[end]):
        end += 1
    new = [*changed, *sent[end:]]
    # Without an answer nothing proves that the request repeats the session: the user says the same again.
    if new or not may_repeat(sent):
        return new or sent
    message = "`messages` only repeats what the session has already; send a new message"
    raise InvalidRequest(message, param="messages")


def _contradicts(stored: Sequence[Message], said: Sequence[Message]) -> bool:
    """Reports whether `said`, which does not repeat the session, repeats some of its messages around an answer."""
    answers = [number for number, message in enumerate(said) if message.role == "assistant"]
    if not answers:
        return False
    # A last answer may be the start of the one to come: then what is before it is no history.
    is_past = answers[-1] < len(said) - 1
    history = said[: answers[-1] + 1] if is_past else [said[number] for number in answers]
    known = {key for message in stored if (key := fingerprint(message)) is not None}
    return not known.isdisjoint(map(fingerprint, history))


def _contradiction(first: Sequence[Message], said: Sequence[Message], places: Sequence[int]) -> InvalidRequest:
    """Returns the error that names the first message that is not what the session has."""
    pairs = enumerate(zip(first, said, strict=False))
    differing = next((number for number, (stored, message) in pairs if not same(stored, message)), None)
    if differing is None:
        param = f"messages[{places[-1]}]"
        message = f"`messages` ends with `{param}`, but the session's history goes on from there"
    else:
        param = f"messages[{places[differing]}]"
        message = f"`{param}` is not what the session has at this place of its history"
    return InvalidRequest(f"{message}; {_REMEDY}", param=param)


def _unknown(known: Sequence[Message], messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if not any(same(message, one) for one in known)]
