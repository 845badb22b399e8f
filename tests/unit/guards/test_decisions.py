"""Responses of guards: what is valid, and that nothing else has an effect."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from parley.core.guards.decisions import Redaction, Refusal, decision, redacted
from parley.core.ports import GuardError
from parley.guard.v1.guard_pb2 import CheckRequest, CheckResponse, Redact, Refuse, Span, Unit

TEXTS = ["", "a😀é", "second text"]
REQUEST = CheckRequest(units=[Unit(text=text) for text in TEXTS])
SPANS = st.builds(
    Span,
    unit=st.integers(0, 4),
    start=st.integers(0, 12),
    end=st.integers(0, 12),
    replacement=st.sampled_from(["", "X"]),
)


@given(st.lists(SPANS, max_size=4))
def test_spans_are_applied_exactly_or_rejected(spans: list[Span]) -> None:
    """Spans within their text that do not overlap are replaced, whatever their order; all others are a failure."""
    cells = [(span.unit, at) for span in spans for at in range(span.start, span.end)]
    is_valid = (
        bool(spans)
        and all(span.start < span.end and span.unit < 3 for span in spans)
        and all(span.end <= len(TEXTS[span.unit]) for span in spans)
        and len(set(cells)) == len(cells)
    )
    response = CheckResponse(redact=Redact(spans=spans))
    if not is_valid:
        with pytest.raises(GuardError):
            decision(REQUEST, response)
        return
    found = decision(REQUEST, response)
    assert isinstance(found, Redaction)
    for number, text in enumerate(TEXTS):
        expected = list(text)
        for span in spans:
            if span.unit == number:
                expected[span.start : span.end] = [span.replacement, *[""] * (span.end - span.start - 1)]
        assert "".join(expected) == redacted(text, found.spans.get(number, ()))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_decision_or_a_failure(data: bytes) -> None:
    """No response of a service causes an error other than that of a guard."""
    try:
        found = decision(REQUEST, CheckResponse.FromString(data))
    except (DecodeError, GuardError):
        return
    assert found is None or isinstance(found, Redaction | Refusal)


@pytest.mark.parametrize(
    ("sent", "shown"), [("pii:email", "pii:email"), ("", "unspecified"), ("my secret", "unspecified")]
)
def test_a_reason_is_a_name(sent: str, shown: str) -> None:
    """The reason of a refusal appears in logs, so that anything but a name is not shown."""
    assert Refusal(shown, "No") == decision(REQUEST, CheckResponse(refuse=Refuse(reason=sent, message="No")))
