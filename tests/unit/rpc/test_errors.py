"""The gRPC status, details and metadata of every error."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from parley.core import errors as domain
from parley.rpc import errors
from parley.rpc.error_catalogue import EDGE, SERVICE, WORKER_LOST
from parley.v1.error_reason_pb2 import DESCRIPTOR, ErrorReason


def _leaves(kind: type[domain.ParleyError]) -> list[type[domain.ParleyError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _leaves(child))]


EDGE_REASONS = {row.reason: row for row in (*EDGE.values(), WORKER_LOST) if row.reason}


def test_every_reason_but_unspecified_has_a_status() -> None:
    """Every reason has a row in the catalogue, either of the service or of the edge."""
    assert set(ErrorReason.values()) - {0} == set(SERVICE) | set(EDGE_REASONS)
    assert not set(SERVICE) & set(EDGE_REASONS)


def test_every_error_class_has_a_reason_of_the_catalogue() -> None:
    """Every class of the error tree has a reason of the catalogue."""
    assert [] == [kind for kind in _leaves(domain.ParleyError) if kind.reason not in SERVICE]


def test_every_reason_is_explained_with_an_example_of_its_status(descriptor_comments: dict[str, str]) -> None:
    """The proto's comment on a reason shows the status of the catalogue."""
    for value in DESCRIPTOR.enum_types_by_name["ErrorReason"].values:
        if value.number:
            comment = descriptor_comments[value.name]
            row = SERVICE.get(value.number) or EDGE_REASONS[value.number]  # type: ignore[call-overload,index]
            assert f"Example: {row.grpc_status.name}, " in comment, value.name


WRONG = [domain.Violation("n", "`n` is: = wrong", "missing"), domain.Violation("stop", "also")]


def test_a_failed_call_returns_details_and_plain_metadata() -> None:
    """A failed call returns ErrorInfo, BadRequest and RetryInfo for gRPC callers, and plain metadata for the edge."""
    error = domain.InvalidRequest("`n` is wrong", param="n", violations=WRONG)
    error.retry_after = 1.2
    metadata = dict(errors.trailing_metadata(error))
    assert "INVALID_REQUEST" == metadata["parley-error-reason"]
    assert "invalid_request" == metadata["parley-error-code"]
    assert "n" == metadata["parley-error-param"]
    assert "2" == metadata["retry-after"]
    assert "n=missing%3A%60n%60%20is%3A%20%3D%20wrong&stop=value_error%3Aalso" == metadata["parley-error-violations"]
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for any_detail, detail in zip(status.details, (info, bad, retry), strict=True):
        assert any_detail.Unpack(detail)
    assert ("INVALID_REQUEST", "parley") == (info.reason, info.domain)
    assert [("n", "MISSING"), ("stop", "VALUE_ERROR")] == [(one.field, one.reason) for one in bad.field_violations]
    assert WRONG == errors.decode_violations(str(metadata["parley-error-violations"]))
    assert 1200 == retry.retry_delay.ToMilliseconds()
    assert grpc.StatusCode.INVALID_ARGUMENT.value[0] == status.code


def test_an_upstream_code_is_returned_beside_the_reason() -> None:
    """The reason stays Parley's; the upstream's code is returned as `code` and in the details."""
    metadata = dict(errors.trailing_metadata(domain.ContentPolicy("no", code="content_filter", param="prompt")))
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(info)
    assert ("CONTENT_POLICY", {"param": "prompt", "upstream_code": "content_filter"}) == (info.reason, info.metadata)
    assert ("CONTENT_POLICY", "content_filter", "prompt") == tuple(
        metadata[f"parley-error-{name}"] for name in ("reason", "code", "param")
    )


def test_an_exceeded_limit_names_its_subject() -> None:
    """The details have a QuotaFailure with the subject of the limit, before the delay."""
    metadata = dict(errors.trailing_metadata(domain.RateLimited("slow down", 3, subject="key:key_1")))
    quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    for any_detail, detail in zip(
        status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details[1:], (quota, retry), strict=True
    ):
        assert any_detail.Unpack(detail)
    assert [("key:key_1", "slow down")] == [(one.subject, one.description) for one in quota.violations]
    assert 3 == retry.retry_delay.seconds


@pytest.mark.parametrize("reason", SERVICE)
def test_a_retryable_error_has_a_retry_delay(reason: ErrorReason.ValueType) -> None:
    """Busy, unavailable and rate-limited calls return a delay of one second unless a better one is known."""
    error = domain.ParleyError("why")
    error.reason = reason
    metadata = dict(errors.trailing_metadata(error))
    helps = SERVICE[reason].grpc_status.name in {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"}
    helps = helps and reason not in {
        ErrorReason.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED,
        ErrorReason.ERROR_REASON_QUOTA_EXHAUSTED,
        ErrorReason.ERROR_REASON_STORAGE_LIMIT_EXCEEDED,
    }
    assert ("1" if helps else None) == metadata.get("retry-after")
    error.retry_after = 7.1
    assert "8" == dict(errors.trailing_metadata(error))["retry-after"]


@pytest.mark.parametrize(
    ("error", "remaining", "expected"),
    [
        (domain.UpstreamRateLimited("busy", retry_after=7), None, 7000),
        (domain.UpstreamRateLimited("busy", retry_after=7), 8.0, 7000),
        (domain.UpstreamRateLimited("busy", retry_after=7), 6.0, -1),
        (domain.UpstreamRateLimited("busy", retry_after=61), None, -1),
        (domain.SessionBusy("s", 0.0123), None, 13),
        (domain.UpstreamUnavailable("away"), None, 1000),
        (domain.UpstreamTimeout("late"), None, None),
        (domain.UpstreamQuotaExhausted("m"), None, -1),
        (domain.ConcurrencyLimited("busy"), None, 1000),
        (domain.QuotaExhausted("spent", 86_400), None, -1),
        (domain.QuotaExhausted("spent", 59), None, 59_000),
        (domain.StorageLimitExceeded("full"), None, -1),
        (domain.InvalidApiKey(), None, -1),
    ],
)
def test_grpc_libraries_get_the_delay_as_pushback(
    error: domain.ParleyError, remaining: float | None, expected: int | None
) -> None:
    """The pushback is the delay in milliseconds, or -1 where a retry is useless or too late for the deadline."""
    metadata = dict(errors.trailing_metadata(error, remaining))
    assert (None if expected is None else str(expected)) == metadata.get("grpc-retry-pushback-ms")


def test_a_call_that_has_used_its_retries_up_is_not_retried_by_a_library() -> None:
    """The pushback is -1 and RetryInfo is absent; REST clients still get `retry-after`."""
    error = domain.UpstreamUnavailable("away")
    error.retries_exhausted = True
    metadata = dict(errors.trailing_metadata(error))
    assert ("-1", "1") == (metadata["grpc-retry-pushback-ms"], metadata["retry-after"])
    details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
    assert not any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)


def test_an_unexpected_exception_becomes_internal_server_error() -> None:
    """The text of an unexpected exception is never returned to a caller."""
    failure = errors.as_parley_error(RuntimeError("password=1234"), "request-1")
    assert "Internal Server Error" == failure.message
    assert b"1234" not in errors.details(failure)


def test_metadata_values_are_percent_encoded() -> None:
    """Metadata is percent-encoded: an upstream's text may have any characters and length, which gRPC would reject."""
    metadata = dict(errors.trailing_metadata(domain.ContentPolicy("no", code="é%", param="messages[0]\n" + "x" * 99)))
    assert "%C3%A9%25" == metadata["parley-error-code"]
    assert "messages[0]%0A" + "x" * 81 + "%E2%80%A6" == metadata["parley-error-param"]


def test_an_error_fits_into_8_kib_of_metadata() -> None:
    """The metadata of an error stays under gRPC's 8 KiB, however long the request's values and its violations are."""
    text, param = "ü" * 100_000, "x" * 100_000
    invalid = domain.InvalidRequest(text, param=param, violations=[domain.Violation(param, text)] * 1000)
    for error in (invalid, domain.UpstreamRejected(text, param=param, code=param)):
        sizes = [len(key) + len(value) * 4 / 3 for key, value in errors.trailing_metadata(error)]
        percent_encoded = 3 * len(error.message.encode())
        assert sum(sizes) + percent_encoded < 8192 - 1024
        assert text.startswith(error.message.removesuffix("…"))
