"""The admin servers: keys, accounts, audit log, channelz and reflection, on sockets of the owner's."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.admin.v1 import accounts_pb2, audit_pb2, keys_pb2, operations_pb2, usage_pb2
from parley.config.admin import AdminConfig
from parley.config.loader import parse
from parley.core.administration import Rules, os_user
from parley.core.ports import AuditFilter
from parley.core.routing.router import Router
from parley.rpc.admin import AdminSockets, admin_servers
from parley.rpc.call import Call
from parley.rpc.liveness import Liveness
from parley.rpc.operations import Operations, PastReload
from parley.rpc.overrides import OverridesFile
from parley.stores.sqlite import SqliteStore
from parley.v1 import models_pb2
from parley.v1.models_pb2_grpc import ModelsStub
from tests.keys import rules
from tests.processes import reserved_port
from tests.rpc.conftest import CONFIG, serving
from tests.rpc.scripted import ScriptedBackend

CHANNELZ = "grpc.channelz.v1.Channelz"
METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for module in (keys_pb2, accounts_pb2, audit_pb2, usage_pb2, operations_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
READS = {name for name in METHODS if name.startswith(("Get", "List", "Query"))}
INVALID = "INVALID_REQUEST"
KEY = "secret-of-an-administrator-0123456789"

LAST_RELOAD = PastReload(1_700_000_000, is_done=True, error=None, changes=["model b added"])
ACCESS = AdminConfig(keys={"ops": KEY})


class Admin:
    """A client of an admin socket, and the store behind it."""

    def __init__(self, channel: grpc.aio.Channel, store: SqliteStore) -> None:
        self.channel = channel
        self.store = store

    async def call(self, name: str, metadata: Any = (), /, **request: Any) -> dict[str, Any]:
        """Calls a method by its name; returns the answer as JSON."""
        answer = await self._call(name, ParseDict(request, _message(METHODS[name])), metadata)
        return MessageToDict(answer, preserving_proto_field_name=True)

    async def fail(self, name: str, metadata: Any = (), /, **request: Any) -> tuple[str, str]:
        """Calls a method, which must fail; returns its reason and message."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(name, metadata, **request)
        trailing: dict[str, Any] = dict(caught.value.trailing_metadata() or ())
        return trailing["parley-error-reason"], caught.value.details() or ""

    def _call(self, name: str, request: Message, metadata: Any) -> Any:
        method = METHODS[name]
        path = f"/{method.containing_service.full_name}/{name}"
        reader = GetMessageClass(method.output_type).FromString
        call: Any = self.channel.unary_unary(path, type(request).SerializeToString, reader)
        return call(request, metadata=metadata)


def _message(method: MethodDescriptor) -> Message:
    return GetMessageClass(method.input_type)()


def _operations(folder: Path) -> Operations:
    """Returns the state of a worker with one target and one call, whose request has the id `running`."""
    call = Call("CreateChatCompletion", "running", "running", {}, asyncio.ensure_future(asyncio.sleep(60)))
    router = Router(parse(CONFIG, "test.yaml"), {"scripted": ScriptedBackend()})
    return Operations(
        router,
        OverridesFile(folder / "overrides.json"),
        running={call},
        signal_parley=lambda _: None,
        last_reload=lambda: LAST_RELOAD,
    )


@asynccontextmanager
async def administering(
    folder: Path,
    *,
    remote: bool = False,
    address: str = "",
    operations: Operations | None = None,
    chosen: Rules | None = None,
) -> AsyncIterator[Admin]:
    """Serves the admin services of a store, on the owner's socket or on the address for the admin listener."""
    store = SqliteStore(folder / "parley.db")
    local, of_listener = folder / "local.sock", address or f"unix:{folder}/remote.sock"
    async with (
        admin_servers(
            AdminSockets(local, of_listener),
            store,
            chosen or rules(["m1", "m2"]),
            ACCESS,
            operations or _operations(folder),
            liveness=Liveness(lambda: None),
        ),
        grpc.aio.insecure_channel(of_listener if remote else f"unix:{local}") as channel,
    ):
        yield Admin(channel, store)
    await store.close()


async def test_channelz_counts_the_calls_of_the_worker(tmp_path: Path) -> None:
    """The admin socket, which only its owner may open, shows the server of the worker and its calls."""
    async with administering(tmp_path) as admin:
        assert {0o600} == {(tmp_path / f"{name}.sock").stat().st_mode & 0o777 for name in ("local", "remote")}
        stub: Any = channelz_pb2_grpc.ChannelzStub(admin.channel)

        async def servers() -> dict[int, Any]:
            found = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
            return {server.ref.server_id: server.data for server in found}

        others = await servers()
        (tmp_path / "worker").mkdir()
        async with serving(tmp_path / "worker") as worker, grpc.aio.insecure_channel(worker.address) as called:
            models: Any = ModelsStub(called)
            metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
            await models.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)
            [own] = [data for number, data in (await servers()).items() if number not in others]
        assert (1, 1, 0) == (own.calls_started, own.calls_succeeded, own.calls_failed)


async def test_the_admin_socket_describes_itself(tmp_path: Path) -> None:
    """Grpcurl needs no protos on the admin socket."""
    async with administering(tmp_path) as admin:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(admin.channel)
        for symbol in (f"{CHANNELZ}.GetServers", "parley.admin.v1.Keys.CreateKey", "parley.admin.v1.AuditLog"):
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            async for answer in stub.ServerReflectionInfo(iter([request])):
                assert answer.file_descriptor_response.file_descriptor_proto


async def test_the_worker_itself_has_no_admin_services(tmp_path: Path) -> None:
    """Envoy forwards every call to the worker's own address, so that callers would reach the services there."""
    async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
        paths = [f"/{method.containing_service.full_name}/{name}" for name, method in METHODS.items()]
        for path in (f"/{CHANNELZ}/GetServers", *paths):
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", metadata=metadata)
            assert grpc.StatusCode.UNIMPLEMENTED == caught.value.code()


async def _change_everything(admin: Admin, metadata: Any = ()) -> list[str]:
    """Makes one change with each method that changes something; returns their names."""
    made = await admin.call("CreateKey", metadata, key={"name": "ci", "account": "acme"})
    requests: dict[str, dict[str, Any]] = {
        "UpdateKey": {"key": {"id": made["key"]["id"], "name": "ci-2"}},
        "RotateKey": {"id": made["key"]["id"]},
        "RevokeKey": {"id": made["key"]["id"]},
        "CreateAccount": {"account": {"name": "beta"}},
        "UpdateAccount": {"account": {"name": "beta", "plan": "free"}},
        "SuspendAccount": {"name": "beta"},
        "ResumeAccount": {"name": "beta"},
        "CancelCall": {"request_id": "running"},
        "OpenTarget": {"name": "scripted"},
        "CloseTarget": {"name": "scripted"},
        "SetTargetWeight": {"name": "scripted", "weight": 2},
        "SetLogLevel": {"level": "debug"},
        "Reload": {},
        "Drain": {},
    }
    for name, request in requests.items():
        await admin.call(name, metadata, **request)
    return ["CreateKey", *requests]


async def test_every_changing_method_adds_one_event(tmp_path: Path) -> None:
    """Each RPC that is no read adds exactly one event of its name, with the owner of the socket; reads add none."""
    async with administering(tmp_path) as admin:
        assert METHODS.keys() - READS == set(await _change_everything(admin))
        chosen = {"GetKey": {"id": (await _keys(admin))[0]["id"]}, "GetAccount": {"name": "beta"}}
        for name in READS:
            await admin.call(name, **chosen.get(name, {}))
        events = (await admin.call("ListAuditEvents"))["events"]
        assert sorted(METHODS.keys() - READS) == sorted(event["method"] for event in events)
        assert {(f"user:{os_user()}", "socket")} == {(event["actor"], event["source"]) for event in events}
        assert abs(time.time() - events[0]["time"]) < 60


async def _keys(admin: Admin) -> list[Any]:
    found: list[Any] = (await admin.call("ListKeys"))["keys"]
    return found


async def test_the_life_of_a_key(tmp_path: Path) -> None:
    """A key is created, listed, updated field by field, rotated and revoked; only two answers have a secret."""
    async with administering(tmp_path) as admin:
        limits = {"requests_per_minute": 60}
        wanted = {"name": "ci", "account": "acme", "models": ["m1"], "scopes": ["chat"], "limits": limits}
        made = await admin.call("CreateKey", key=wanted)
        key = made["key"]
        assert (True, "KEY_STATE_ACTIVE") == (made["secret"].startswith("sk-"), key["state"])
        assert wanted == {name: key[name] for name in wanted}
        updated = await admin.call(
            "UpdateKey",
            key={"id": key["id"], "name": "ci-2", "limits": {"tokens_per_minute": 9}},
            update_mask="name,models,limits.tokensPerMinute",
        )
        assert ("ci-2", {**limits, "tokens_per_minute": 9}, None) == (
            *(updated["name"], updated["limits"]),
            updated.get("models"),
        )
        expired = await admin.call("UpdateKey", key={"id": key["id"], "expires": 1})
        assert "KEY_STATE_EXPIRED" == expired["state"]
        assert (
            "KEY_REVOKED",
            f'The key "{key["id"]}" is expired; set a later expiry first, or create another key',
        ) == (await admin.fail("RotateKey", id=key["id"]))
        await admin.call("UpdateKey", key={"id": key["id"]}, update_mask="expires")
        rotated = await admin.call("RotateKey", id=key["id"], keep_seconds=60)
        assert (True, True) == (rotated["secret"] != made["secret"], rotated["key"]["previous_expires"] > time.time())
        revoked = await admin.call("RevokeKey", id=key["id"])
        assert revoked == await admin.call("RevokeKey", id=key["id"]) == await admin.call("GetKey", id=key["id"])
        assert "KEY_STATE_REVOKED" == revoked["state"]
        assert [revoked] == await _keys(admin)
        assert "KEY_REVOKED" == (await admin.fail("UpdateKey", key={"id": key["id"], "name": "x"}))[0]


async def test_lists_have_pages(tmp_path: Path) -> None:
    """Keys, accounts and events are listed in pages, and filtered."""
    async with administering(tmp_path) as admin:
        for number in range(3):
            await admin.call("CreateKey", key={"name": f"k{number}", "account": f"a{number}"})
        for method, field in (("ListKeys", "keys"), ("ListAccounts", "accounts"), ("ListAuditEvents", "events")):
            first = await admin.call(method, page_size=2)
            rest = await admin.call(method, page_size=2, page_token=first["next_page_token"])
            assert (2, 1, False) == (len(first[field]), len(rest[field]), "next_page_token" in rest)
            assert "INVALID_REQUEST" == (await admin.fail(method, page_token="x"))[0]
        assert ["k1"] == [key["name"] for key in (await admin.call("ListKeys", account="a1"))["keys"]]


@pytest.mark.parametrize(
    ("method", "request_", "reason", "text"),
    [
        ("GetKey", {"id": "key_x\0"}, "KEY_NOT_FOUND", "No key has the id"),
        ("RevokeKey", {"id": ""}, "KEY_NOT_FOUND", "No key has the id"),
        ("GetAccount", {"name": "nobody"}, "ACCOUNT_NOT_FOUND", 'No account is named "nobody"'),
        ("SuspendAccount", {"name": "nobody"}, "ACCOUNT_NOT_FOUND", 'No account is named "nobody"'),
        ("CreateAccount", {"account": {"name": "acme"}}, "ACCOUNT_EXISTS", 'An account named "acme" exists'),
        ("CreateKey", {}, INVALID, "`name` must not be empty"),
        ("CreateKey", {"key": {"name": "\x1b[31mred"}}, INVALID, "`name` must not have control characters"),
        ("CreateKey", {"key": {"name": "x" * 129}}, INVALID, "`name` must have at most 128 characters"),
        ("CreateKey", {"key": {"name": "x", "account": "\u202ex"}}, INVALID, "`account` must not"),
        ("CreateKey", {"key": {"name": "x", "models": ["m9"]}}, INVALID, 'no model has the id "m9"; use one'),
        ("CreateKey", {"key": {"name": "x", "scopes": ["all"]}}, INVALID, 'no scope is named "all"; use one of'),
        ("CreateKey", {"key": {"name": "x", "limits": {"a": 1}}}, INVALID, '`limits` has no "a"; the limits are: '),
        ("CreateKey", {"key": {"name": "x", "limits": {"requests_per_minute": -1}}}, INVALID, "`limits.requests_"),
        ("CreateKey", {"key": {"name": "x"}, "plan": "gold"}, INVALID, 'no plan is named "gold"; use one of: free'),
        ("CreateKey", {"key": {"name": "x", "account": "acme"}, "plan": "free"}, INVALID, "is on the plan pro"),
        ("UpdateKey", {"key": {"id": "key_1"}}, INVALID, "`update_mask`: it names no field"),
        ("UpdateKey", {"key": {"id": "key_1"}, "update_mask": "account"}, INVALID, '"account" cannot be changed'),
        ("RotateKey", {"id": "key_1", "keep_seconds": 10**9}, INVALID, "`keep_seconds` must be at most"),
    ],
)  # fmt: skip
async def test_refused_changes(tmp_path: Path, method: str, request_: Any, reason: str, text: str) -> None:
    """A refused change names the field and what to do, and is not in the audit log."""
    async with administering(tmp_path) as admin:
        await admin.call("CreateAccount", account={"name": "acme", "plan": "pro"})
        found, message = await admin.fail(method, **request_)
        assert (reason, True) == (found, text in message), message
        events, _ = await admin.store.list_audit_events(AuditFilter(), page_size=9, page_token=None)
        assert ["CreateAccount"] == [event.method for event in events]


async def test_the_admin_listener_requires_a_key(tmp_path: Path) -> None:
    """Every method of the listener requires an admin key, and the audit log has its name and the caller's address."""
    async with administering(tmp_path, remote=True) as admin:
        for metadata in ((), (("authorization", f"Bearer {KEY}x"),), (("authorization", KEY),)):
            assert {"INVALID_ADMIN_KEY"} == {(await admin.fail(name, metadata))[0] for name in METHODS}
        assert [] == (await admin.store.list_keys(page_size=9))[0]
        forwarded = ("parley-client-address", "192.0.2.7")
        await _change_everything(admin, (("authorization", f"Bearer {KEY}"), forwarded))
        events, _ = await admin.store.list_audit_events(AuditFilter(), page_size=9, page_token=None)
        assert {("admin-key:ops", "192.0.2.7")} == {(event.actor, event.source) for event in events}


async def test_an_envoy_of_another_machine_gets_what_is_in_the_store(tmp_path: Path) -> None:
    """On an address of the network a key is required, too, and the state of one worker is not served."""
    authorized, address = (("authorization", f"Bearer {KEY}"),), f"127.0.0.1:{reserved_port()}"
    async with administering(tmp_path, remote=True, address=address) as admin:
        assert "INVALID_ADMIN_KEY" == (await admin.fail("ListKeys"))[0]
        assert {} == await admin.call("ListKeys", authorized)
        of_worker = {name for name in METHODS if METHODS[name].containing_service.name == "Operations"}
        for name in of_worker:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await admin.call(name, authorized)
            assert grpc.StatusCode.UNIMPLEMENTED is failure.value.code()
        (tmp_path / "other").mkdir()
        with pytest.raises(RuntimeError, match=address):  # and not shared by two workers
            async with administering(tmp_path / "other", address=address):
                pass


async def test_the_plans_have_the_limits_of_their_accounts(tmp_path: Path) -> None:
    """Each plan has its own limits and those of `limits.account`, so that the limits of an account can be shown."""
    config = parse(
        "backends: {a: {kind: llama_cpp}}\nmodels: [{id: m, targets: [{backend: a}]}]\n"
        "limits: {account: {requests_per_minute: 5, cost_per_month: 7}}\n"
        "plans: {pro: {limits: {requests_per_minute: 60}}, free: {api: false}}\n",
        "test.yaml",
    )
    async with administering(tmp_path, chosen=Rules.of(config)) as admin:
        account = {"requests_per_minute": 5, "cost_per_month": 7}
        assert [
            {"name": "free", "limits": account},
            {"name": "pro", "api": True, "limits": {**account, "requests_per_minute": 60}, "default": True},
        ] == (await admin.call("ListPlans"))["plans"]


async def test_a_call_is_logged_by_the_name_of_its_method(
    tmp_path: Path, log: Callable[[str, int], list[dict[str, Any]]]
) -> None:
    """The name of an admin method has no suffix that stands for a form of the answer."""
    async with administering(tmp_path) as admin:
        await admin.call("ListAuditEvents", (("x-request-id", "audited"),))
        [line] = log("audited", 1)
        assert ("ListAuditEvents", None) == (line["method"], line.get("form"))
