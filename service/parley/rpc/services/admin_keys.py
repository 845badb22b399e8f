"""The `Keys` service, for administrators."""

import time

from parley.admin.v1 import keys_pb2 as messages
from parley.admin.v1 import keys_pb2_grpc as services
from parley.core.administration import DEFAULT_ACCOUNT, KEEP_SECONDS, Keys, KeySettings
from parley.rpc import admin_messages
from parley.rpc.call import origin
from parley.rpc.call_handler import Context
from parley.rpc.paging import page_size

_FIELDS = ("name", "models", "scopes", "limits", "expires")


class KeysServicer(services.KeysServicer):
    """Serves the keys of the store."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def ListKeys(self, request: messages.ListKeysRequest, context: Context) -> messages.ListKeysResponse:
        """Lists keys, the oldest first."""
        found, token = await self._keys.page(
            request.account or None, page_size=page_size(request), page_token=request.page_token or None
        )
        now = time.time()
        return messages.ListKeysResponse(keys=[admin_messages.key(key, now) for key in found], next_page_token=token)

    async def GetKey(self, request: messages.GetKeyRequest, context: Context) -> messages.Key:
        """Reads one key."""
        return admin_messages.key(await self._keys.get(request.id), time.time())

    async def CreateKey(self, request: messages.CreateKeyRequest, context: Context) -> messages.CreateKeyResponse:
        """Creates a key."""
        new = request.key
        settings = KeySettings(
            name=new.name,
            account=new.account or DEFAULT_ACCOUNT,
            plan=request.plan or None,
            models=new.models,
            scopes=new.scopes,
            limits=new.limits,
            expires=new.expires if new.HasField("expires") else None,
        )
        key, secret = await self._keys.create(settings, origin())
        return messages.CreateKeyResponse(key=admin_messages.key(key, time.time()), secret=secret)

    async def UpdateKey(self, request: messages.UpdateKeyRequest, context: Context) -> messages.Key:
        """Changes fields of a key."""
        changes = admin_messages.changes(request.key, request.update_mask, _FIELDS)
        return admin_messages.key(await self._keys.update(request.key.id, changes, origin()), time.time())

    async def RotateKey(self, request: messages.RotateKeyRequest, context: Context) -> messages.RotateKeyResponse:
        """Gives a key a new secret."""
        keep = request.keep_seconds if request.HasField("keep_seconds") else KEEP_SECONDS
        key, secret = await self._keys.rotate(request.id, keep, origin())
        return messages.RotateKeyResponse(key=admin_messages.key(key, time.time()), secret=secret)

    async def RevokeKey(self, request: messages.RevokeKeyRequest, context: Context) -> messages.Key:
        """Revokes a key permanently."""
        return admin_messages.key(await self._keys.revoke(request.id, origin()), time.time())
