"""Authentication, the models a key may use, health, reflection and log lines."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.v1 import models_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2 import ListSessionsRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.calling import Log, Metadata, chat_request
from tests.rpc.conftest import Worker, serving

PLAN = "This API is only available on a paid plan. Visit your dashboard to upgrade."
REFUSED = [
    (None, grpc.StatusCode.UNAUTHENTICATED, "Missing API key"),
    ("", grpc.StatusCode.UNAUTHENTICATED, "Missing API key"),
    ("Bearer sk-wrong", grpc.StatusCode.UNAUTHENTICATED, "Invalid API key"),
    ("Basic abc", grpc.StatusCode.UNAUTHENTICATED, "Invalid API key"),
    ("eve", grpc.StatusCode.PERMISSION_DENIED, PLAN),
]


@pytest.mark.parametrize(("authorization", "status", "text"), REFUSED)
def test_every_method_requires_a_valid_key(
    worker: Worker,
    chat: ChatCompletionsStub,
    sessions: SessionsStub,
    models: ModelsStub,
    authorization: str | None,
    status: grpc.StatusCode,
    text: str,
) -> None:
    """Every method of every service requires a key, with the documented messages."""
    if authorization in worker.keys:
        authorization = f"Bearer {worker.keys[authorization]}"
    metadata = () if authorization is None else (("authorization", authorization),)
    for method, request in (
        (chat.CreateChatCompletion, chat_request()),
        (lambda r, metadata: list(chat.StreamChatCompletion(r, metadata=metadata)), chat_request()),
        (lambda r, metadata: list(chat.StreamChatCompletionEvents(r, metadata=metadata)), chat_request()),
        (sessions.ListSessions, ListSessionsRequest()),
        (models.ListModels, messages.ListModelsRequest()),
    ):
        call: Any = method
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=metadata)
        error: Any = caught.value
        assert (status, text) == (error.code(), error.details())


def test_models_are_those_that_the_key_may_use(worker: Worker, models: ModelsStub, ada: Metadata) -> None:
    """A key that is limited to one model lists and uses only that one."""
    assert ["kept", "on-request", "stateless", "queued", "impatient", "once", "short"] == [
        model.id for model in models.ListModels(messages.ListModelsRequest(), metadata=ada).data
    ]
    tim = (("authorization", f"Bearer {worker.keys['tim']}"),)
    assert ["kept"] == [model.id for model in models.ListModels(messages.ListModelsRequest(), metadata=tim).data]
    model = models.GetModel(messages.GetModelRequest(model="kept"), metadata=tim)
    assert ("kept", "model", "scripted") == (model.id, model.object, model.owned_by)
    with pytest.raises(grpc.RpcError, match="Unknown model"):
        models.GetModel(messages.GetModelRequest(model="stateless"), metadata=tim)


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key"])
def test_a_key_in_another_header_is_rejected_with_the_right_one(chat: ChatCompletionsStub, name: str) -> None:
    """A key in another vendor's header is rejected with the documented text and the name of the right header."""
    with pytest.raises(grpc.RpcError) as caught:
        chat.CreateChatCompletion(chat_request(), metadata=((name, "sk-secret"),))
    error: Any = caught.value
    text = f"Missing API key; send it as `Authorization: Bearer <key>`, not in `{name}`"
    assert (grpc.StatusCode.UNAUTHENTICATED, text) == (error.code(), error.details())


def test_models_have_one_creation_time(tmp_path: Path, models: ModelsStub, ada: Metadata) -> None:
    """`created` is the same in another worker that is started at another time."""
    created = {model.created for model in models.ListModels(messages.ListModelsRequest(), metadata=ada).data}

    async def of_another() -> int:
        async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
            metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
            stub: Any = ModelsStub(channel)
            return int((await stub.GetModel(messages.GetModelRequest(model="kept"), metadata=metadata)).created)

    assert created == {asyncio.run(of_another())}
    assert max(created) < time.time()


REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
SYMBOLS = [
    "parley.v1.ChatCompletions",
    "parley.v1.ChatCompletions.CreateChatCompletion",
    "parley.v1.Sessions.ForkSession",
    "parley.v1.Message",
    "parley.v1.Message.role",
    "parley.v1.ErrorReason",
    "parley.v1.ERROR_REASON_SESSION_BUSY",
    "google.api.http",
    "google.rpc.ErrorInfo",
    "grpc.health.v1.Health.Check",
    "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection",
]


def _reflected(channel: grpc.Channel, service: str, **request: Any) -> reflection_pb2.ServerReflectionResponse:
    call: Any = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answer: reflection_pb2.ServerReflectionResponse = next(
        call(iter([reflection_pb2.ServerReflectionRequest(**request)]))
    )
    return answer


@pytest.mark.parametrize("service", REFLECTION)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_both_versions_of_reflection_describe_every_symbol(
    grpc_channel: grpc.Channel, service: str, symbol: str
) -> None:
    """Both versions find the complete files of services, messages, fields and methods."""
    files = _reflected(grpc_channel, service, file_containing_symbol=symbol).file_descriptor_response
    pool = DescriptorPool()
    by_name = {file.name: file for file in map(FileDescriptorProto.FromString, files.file_descriptor_proto)}

    def add(file: FileDescriptorProto) -> None:
        for name in file.dependency:
            add(by_name[name])
        pool.Add(file)

    for file in by_name.values():
        add(file)
    package = next(file.package for file in by_name.values() if symbol.startswith(f"{file.package}."))
    top = symbol.removeprefix(f"{package}.").partition(".")[0]
    assert package == pool.FindFileContainingSymbol(f"{package}.{top}").package


@pytest.mark.parametrize("service", REFLECTION)
def test_both_versions_of_reflection_list_all_services(grpc_channel: grpc.Channel, service: str) -> None:
    """Each version of reflection lists itself and the other one."""
    listed = _reflected(grpc_channel, service, list_services="*").list_services_response.service
    own = {f"parley.v1.{name}" for name in ("ChatCompletions", "Sessions", "Models", "UsageReports", "Identity")}
    assert {*own, "grpc.health.v1.Health", *REFLECTION} == {each.name for each in listed}
    for unknown in ("parley.v1.Nope", "parley.v1.ChatCompletions.Nope", "Nope"):
        answer = _reflected(grpc_channel, service, file_containing_symbol=unknown)
        assert grpc.StatusCode.NOT_FOUND.value[0] == answer.error_response.error_code


@pytest.mark.parametrize("service", REFLECTION)
def test_both_versions_of_reflection_find_extensions(grpc_channel: grpc.Channel, service: str) -> None:
    """Both versions list the extensions of a message and find their file; what is missing is NOT_FOUND."""
    options, http = "google.protobuf.MethodOptions", 72295728
    listed = _reflected(grpc_channel, service, all_extension_numbers_of_type=options).all_extension_numbers_response
    assert (options, True) == (listed.base_type_name, http in listed.extension_number)
    known = reflection_pb2.ExtensionRequest(containing_type=options, extension_number=http)
    files = _reflected(grpc_channel, service, file_containing_extension=known).file_descriptor_response
    found = [FileDescriptorProto.FromString(file) for file in files.file_descriptor_proto]
    assert "google/api/annotations.proto" in [file.name for file in found]
    missing: list[dict[str, Any]] = [
        {"file_containing_extension": reflection_pb2.ExtensionRequest(containing_type=options, extension_number=1)},
        {"all_extension_numbers_of_type": "parley.v1.Nope"},
        {"file_by_filename": "parley/v1/nope.proto"},
    ]
    for request in missing:
        answer = _reflected(grpc_channel, service, **request)
        assert grpc.StatusCode.NOT_FOUND.value[0] == answer.error_response.error_code


def test_health_and_reflection_need_no_key(worker: Worker, grpc_channel: grpc.Channel) -> None:
    """Health and reflection need no key: they belong to the internal listener, for grpcurl and Envoy."""
    health = health_pb2_grpc.HealthStub(grpc_channel)
    for service in ("", "parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert health_pb2.HealthCheckResponse.SERVING == answer.status
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    listed = next(stub.ServerReflectionInfo(iter([request]))).list_services_response.service
    assert {"parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models"} <= {s.name for s in listed}


def test_an_operation_has_one_name_in_the_log(chat: ChatCompletionsStub, ada: Metadata, log: Log) -> None:
    """The methods that REST uses are logged under the name of their operation."""
    calls: dict[str, Any] = {
        "CreateChatCompletion": [chat.CreateChatCompletion, chat.CreateChatCompletionJson],
        "StreamChatCompletion": [
            lambda *args, **options: list(chat.StreamChatCompletion(*args, **options)),
            lambda *args, **options: list(chat.StreamChatCompletionEvents(*args, **options)),
        ],
    }
    for name, forms in calls.items():
        for number, make in enumerate(forms):
            make(chat_request(), metadata=(*ada, ("x-request-id", f"{name}-{number}")))
    found = [log(f"{name}-{number}", 1)[0] for name in calls for number in range(2)]
    assert [
        ("CreateChatCompletion", None),
        ("CreateChatCompletion", "json"),
        ("StreamChatCompletion", None),
        ("StreamChatCompletion", "events"),
    ] == [(line["method"], line.get("form")) for line in found]


def test_every_call_has_one_line_in_the_log_without_secrets(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, log: Log
) -> None:
    """The line of a call has its caller, method and status, and neither keys nor texts."""
    trace = (("x-request-id", "r-77"), ("x-correlation-id", 'order:42/7 "a" =='))
    chat.CreateChatCompletion(chat_request("a private matter"), metadata=(*ada, *trace))
    with pytest.raises(grpc.RpcError):
        chat.CreateChatCompletion(chat_request(model="nosuch"), metadata=(*ada, *trace))
    good, bad = lines = log("r-77", 2)
    assert {"method": "CreateChatCompletion", "status": "OK", "model": "kept", "account": "ada"}.items() <= good.items()
    assert {"correlation_id": 'order:42/7 "a" ==', "prompt_tokens": 3, "completion_tokens": 2}.items() <= good.items()
    assert {
        "status": "NOT_FOUND",
        "reason": "MODEL_NOT_FOUND",
        "error": 'Unknown model "nosuch"',
    }.items() <= bad.items()
    assert worker.keys["ada"] not in str(lines)
    assert "private" not in str(lines)
