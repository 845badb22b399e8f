"""What a call holds in the store while it runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from parley.core.ports import Claim, Settlement, Turn
from parley.core.usage.admission import UNLIMITED_CALL, Admission
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message


@dataclass(slots=True, eq=False)
class CallLease:
    """What a call holds in the store while it runs.

    Attributes:
        turn: The turn; None for a call without a session.
        claim: The claim of the idempotency key; None for a call without one.
        admission: The reservation of the rate limits.
        session_id: The id of the turn's session as the caller knows it; None for a call without a session.
    """

    turn: Turn | None = None
    claim: Claim | None = None
    admission: Admission = UNLIMITED_CALL
    session_id: str | None = None

    @property
    def is_persisted(self) -> bool:
        """Whether the store holds a turn or a claim of the call."""
        return self.turn is not None or self.claim is not None

    def conversation(self, request: CreateChatCompletionRequest) -> Sequence[Message]:
        """Returns the messages to send to the model: in a session its history and the new messages.

        They are those of the request itself if they are the same, so that the request is sent without a copy.
        """
        turn = self.turn
        if turn is None or (not turn.history and len(turn.messages) == len(request.messages)):
            return request.messages
        return [*turn.history, *turn.messages]

    def settlement(self) -> Settlement | None:
        """Returns what settles the limits in the transaction of the turn; None for a call without a turn."""
        return self.admission.take_settlement() if self.turn else None

    def prior_messages(self, request: CreateChatCompletionRequest) -> Sequence[Message]:
        """Returns the messages of the conversation that the request does not contain."""
        if self.turn is None:
            return []
        more = len(self.turn.history) + len(self.turn.messages) - len(request.messages)
        return self.turn.history[: max(0, more)]
