"""The guards of one call, in the order of the configuration: each receives what the one before it let pass."""

from collections.abc import Sequence

from parley.core.errors import GuardRefused
from parley.core.guards.configured import CheckedCall, ConfiguredGuard
from parley.core.guards.decisions import Decision, Redaction, Refusal
from parley.core.guards.history import latest_messages
from parley.core.guards.records import GuardRecord, Phase
from parley.core.guards.refusals import not_text, refuse_choice
from parley.core.guards.streams import Batches, GuardedStream
from parley.core.guards.texts import (
    choice_texts,
    drop_repetitions,
    has_media,
    history_units,
    redact,
    request_texts,
    unreadable_part,
)
from parley.core.messages.text_completion import TextCompletion
from parley.core.offload import offload
from parley.core.ports import SessionStore
from parley.core.routing.execution import Execution
from parley.guard.v1 import guard_pb2 as proto
from parley.guard.v1.guard_pb2 import CheckRequest, Unit
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Usage


class CallGuards:
    """The guards of one call.

    Args:
        guards: The guards of the model.
        template: The fields that all checks of the call have.
        call: The call.
        choices: The number of requested answers.

    Attributes:
        records: What the guards have decided so far.
    """

    def __init__(
        self, guards: Sequence[ConfiguredGuard], template: CheckRequest, call: CheckedCall, choices: int
    ) -> None:
        self._guards = guards
        self._template = template
        self._call = call
        self._choices = choices
        self.records: list[GuardRecord] = []

    async def check_request(
        self, request: CreateChatCompletionRequest, store: SessionStore
    ) -> CreateChatCompletionRequest:
        """Returns the request as the guards let it pass: the same message if nothing is redacted.

        Args:
            request: The request, which is not modified.
            store: Has the history of the session.

        Raises:
            GuardRefused: A guard refuses the request.
            GuardUnavailable: A guard failed, and is closed on failure.
            DeadlineExceeded: The call's own deadline passed.
            StoreUnavailable: The store cannot be reached.
        """
        for guard in self._guards:
            if guard.config.before:
                request = await self._check_request(guard, request, store)
        return request

    def require_answer_checks(self) -> None:
        """Raises GuardUnavailable if the check of an answer would fail at once: no answer is paid for nothing."""
        for guard in self._guards:
            if guard.config.after:
                guard.require_admitted(self._call, self._record(guard, "after"))

    async def check_answer(self, answer: ChatCompletion | TextCompletion) -> ChatCompletion | TextCompletion:
        """Returns a whole answer as the guards let it pass; for the errors see `check_request`."""
        for guard in self._guards:
            if guard.config.after:
                answer = await self._check_answer(guard, answer)
        return answer

    def check_stream(self, execution: Execution) -> Batches:
        """Returns the stream of an answer as the guards let it pass; for the errors see `check_request`."""
        batches = execution.stream()
        for guard in self._guards:
            if guard.config.after:
                checks = _StreamChecks(self, guard, self._record(guard, "after"), execution)
                batches = GuardedStream(guard.name, guard.config, checks, self._choices).run(batches)
        return batches

    async def _check_request(
        self, guard: ConfiguredGuard, request: CreateChatCompletionRequest, store: SessionStore
    ) -> CreateChatCompletionRequest:
        record = self._record(guard, "before")
        part = unreadable_part(request)
        if part is not None and guard.refuse_media(record):
            message = f'The guard "{guard.name}" of this service cannot read `{part}`; send text only'
            raise GuardRefused(guard.name, "not_text", message, param=part)
        texts = await offload(request_texts, request)
        if not texts:
            return request
        units = [text.unit for text in texts]
        check = await offload(self._new_check, guard, proto.PHASE_BEFORE, units, last=True)
        if guard.config.history and request.HasField("session_id"):
            session, count = request.session_id, guard.config.history
            check.units.extend(history_units(await latest_messages(store, self._template.account, session, count)))
        decision = await guard.check(check, self._call, record)
        if isinstance(decision, Refusal):
            raise GuardRefused(guard.name, decision.reason, decision.message)
        if decision is None:
            return request
        record.mark_redacted()
        return await offload(_redacted_request, request, decision)

    async def _check_answer(
        self, guard: ConfiguredGuard, answer: ChatCompletion | TextCompletion
    ) -> ChatCompletion | TextCompletion:
        record = self._record(guard, "after")
        if isinstance(answer, TextCompletion):
            unit = Unit(kind=proto.KIND_CONTENT, text=answer.text, role="assistant")
            decision = await self.decide(guard, [unit] if answer.text else [], 0, record)
            if decision is not None:
                answer = answer.message()
                _apply(guard.name, answer, 0, decision, record)
            return answer
        for position, choice in enumerate(answer.choices):
            if has_media(choice.message) and guard.refuse_media(record):
                refuse_choice(choice, guard.name, not_text(guard.name))
                continue
            units = [text.unit for text in choice_texts(answer, position)]
            decision = await self.decide(guard, units, choice.index, record)
            if decision is not None:
                _apply(guard.name, answer, position, decision, record)
        return answer

    async def decide(
        self, guard: ConfiguredGuard, units: Sequence[Unit], choice: int, record: GuardRecord, *, last: bool = True
    ) -> Decision:
        """Returns the decision on texts of a choice; None if there are none."""
        if not units:
            return None
        check = self._new_check(guard, proto.PHASE_AFTER, units, last=last)
        check.choice = choice
        return await guard.check(check, self._call, record)

    def _new_check(
        self, guard: ConfiguredGuard, phase: proto.Phase.ValueType, units: Sequence[Unit], *, last: bool
    ) -> CheckRequest:
        check = CheckRequest()
        check.CopyFrom(self._template)
        check.guard, check.phase, check.last = guard.name, phase, last
        check.units.extend(units)
        return check

    def _record(self, guard: ConfiguredGuard, phase: Phase) -> GuardRecord:
        record = GuardRecord(guard.name, phase)
        self.records.append(record)
        return record


class _StreamChecks:
    """The checks of one guard of a streamed answer; see `StreamChecks`."""

    def __init__(self, call: CallGuards, guard: ConfiguredGuard, record: GuardRecord, execution: Execution) -> None:
        self._call = call
        self._guard = guard
        self._record = record
        self._execution = execution
        self.mark_redacted = record.mark_redacted

    async def check(self, units: list[Unit], choice: int, *, last: bool) -> Decision:
        """Checks the units of a choice."""
        return await self._call.decide(self._guard, units, choice, self._record, last=last)

    def refuse_media(self) -> bool:
        """Returns whether sound is refused, and records the refusal."""
        return self._guard.refuse_media(self._record)

    def usage(self) -> Usage | None:
        """Returns the usage of the attempts, which have ended."""
        receipt = self._execution.receipt()
        return receipt.usage if receipt.HasField("usage") else None


def _apply(
    guard: str, answer: ChatCompletion, position: int, decision: Refusal | Redaction, record: GuardRecord
) -> None:
    """Changes a choice of a whole answer as a guard has decided."""
    choice = answer.choices[position]
    if isinstance(decision, Refusal):
        refuse_choice(choice, guard, decision)
        if position == 0:
            answer.ClearField("extra_json")  # which was checked with it
        return
    record.mark_redacted()
    redact(choice_texts(answer, position), decision.spans)
    drop_repetitions(choice)


def _redacted_request(request: CreateChatCompletionRequest, decision: Redaction) -> CreateChatCompletionRequest:
    """Returns a copy of a request with the spans replaced."""
    copy = CreateChatCompletionRequest()
    copy.CopyFrom(request)
    redact(request_texts(copy), decision.spans)
    return copy
