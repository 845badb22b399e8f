"""Who gets in, what they may see, and what stands beside the services: health, reflection, log lines."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.v1 import models_pb2 as messages
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2 import ListSessionsRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.conftest import Worker
from tests.rpc.test_chat import Log, Metadata, ask

PLAN = "This API is only available on a paid plan. Visit your dashboard to upgrade."
REFUSED = [
    (None, grpc.StatusCode.UNAUTHENTICATED, "Missing API key"),
    ("", grpc.StatusCode.UNAUTHENTICATED, "Missing API key"),
    ("Bearer sk-wrong", grpc.StatusCode.UNAUTHENTICATED, "Invalid API key"),
    ("Basic abc", grpc.StatusCode.UNAUTHENTICATED, "Invalid API key"),
    ("eve", grpc.StatusCode.PERMISSION_DENIED, PLAN),
]


@pytest.mark.parametrize(("authorization", "status", "text"), REFUSED)
def test_no_method_is_reached_without_a_good_key(
    worker: Worker,
    chat: ChatCompletionsStub,
    sessions: SessionsStub,
    models: ModelsStub,
    authorization: str | None,
    status: grpc.StatusCode,
    text: str,
) -> None:
    """Every method of every service asks for the key, with the documented messages."""
    if authorization in worker.keys:
        authorization = f"Bearer {worker.keys[authorization]}"
    metadata = () if authorization is None else (("authorization", authorization),)
    for method, request in (
        (chat.CreateChatCompletion, ask()),
        (lambda r, metadata: list(chat.StreamChatCompletion(r, metadata=metadata)), ask()),
        (lambda r, metadata: list(chat.StreamChatCompletionEvents(r, metadata=metadata)), ask()),
        (sessions.ListSessions, ListSessionsRequest()),
        (models.ListModels, messages.ListModelsRequest()),
    ):
        call: Any = method
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=metadata)
        error: Any = caught.value
        assert (status, text) == (error.code(), error.details())


def test_models_are_those_that_the_key_may_use(worker: Worker, models: ModelsStub, ada: Metadata) -> None:
    """A key limited to a model sees and uses that one only."""
    assert ["kept", "on-request", "stateless", "queued", "impatient", "once", "short"] == [
        model.id for model in models.ListModels(messages.ListModelsRequest(), metadata=ada).data
    ]
    tim = (("authorization", f"Bearer {worker.keys['tim']}"),)
    assert ["kept"] == [model.id for model in models.ListModels(messages.ListModelsRequest(), metadata=tim).data]
    model = models.GetModel(messages.GetModelRequest(model="kept"), metadata=tim)
    assert ("kept", "model", "scripted") == (model.id, model.object, model.owned_by)
    with pytest.raises(grpc.RpcError, match="Unknown model"):
        models.GetModel(messages.GetModelRequest(model="stateless"), metadata=tim)


def test_health_and_reflection_need_no_key(worker: Worker, grpc_channel: grpc.Channel) -> None:
    """They belong to the internal listener; grpcurl and Envoy use them."""
    health = health_pb2_grpc.HealthStub(grpc_channel)
    for service in ("", "parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert health_pb2.HealthCheckResponse.SERVING == answer.status
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    listed = next(stub.ServerReflectionInfo(iter([request]))).list_services_response.service
    assert {"parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models"} <= {s.name for s in listed}


def test_every_call_has_one_line_in_the_log_without_secrets(
    worker: Worker, chat: ChatCompletionsStub, ada: Metadata, log: Log
) -> None:
    """The line says who asked what and how it ended; neither keys nor texts are in it."""
    trace = (("x-request-id", "r-77"), ("x-correlation-id", "c-77"))
    chat.CreateChatCompletion(ask("a private matter"), metadata=(*ada, *trace))
    with pytest.raises(grpc.RpcError):
        chat.CreateChatCompletion(ask(model="nosuch"), metadata=(*ada, *trace))
    good, bad = lines = log("r-77", 2)
    assert {"method": "CreateChatCompletion", "status": "OK", "model": "kept", "account": "ada"}.items() <= good.items()
    assert {"correlation_id": "c-77", "prompt_tokens": 3, "completion_tokens": 2}.items() <= good.items()
    assert {
        "status": "NOT_FOUND",
        "reason": "MODEL_NOT_FOUND",
        "error": 'Unknown model "nosuch"',
    }.items() <= bad.items()
    assert worker.keys["ada"] not in str(lines)
    assert "private" not in str(lines)
