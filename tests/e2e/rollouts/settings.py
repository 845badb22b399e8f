"""The client settings under test: the parts of the recommended service config one by one, and the whole of it."""

import json
from pathlib import Path
from typing import Any

PROTOS = Path(__file__).parents[3] / "protos"
RECOMMENDED = json.loads((PROTOS / "parley" / "v1" / "parley_grpc_service_config.json").read_text())
_ROUND_ROBIN = {"loadBalancingConfig": RECOMMENDED["loadBalancingConfig"]}


def _setting(service_config: dict[str, Any], *, wait_for_ready: bool = False, keys: bool = False) -> dict[str, Any]:
    """Returns a setting of a plan."""
    if wait_for_ready:
        service_config = {**service_config, "methodConfig": [{"name": [{}], "waitForReady": True}]}
    return {"service_config": service_config, "wait_for_ready": wait_for_ready, "idempotency_keys": keys}


_SETTINGS = {
    "default": _setting({}),
    "round_robin": _setting(_ROUND_ROBIN),
    "retry": _setting({"methodConfig": RECOMMENDED["methodConfig"]}),
    "health": _setting({**_ROUND_ROBIN, "healthCheckConfig": RECOMMENDED["healthCheckConfig"]}),
    "wait_for_ready": _setting({}, wait_for_ready=True),
    "wait_for_ready_round_robin": _setting(_ROUND_ROBIN, wait_for_ready=True),
    "recommended": _setting(RECOMMENDED, keys=True),
}


def channels(addresses: dict[str, str]) -> list[dict[str, Any]]:
    """Returns every setting for each target, as channels of a plan.

    Args:
        addresses: The gRPC address of each target. `restarted` is a single pod that is away for a while, which only
            clients that wait for it survive.
    """
    return [
        {"target": target, "address": address, "setting": name, **setting}
        for target, address in addresses.items()
        for name, setting in _SETTINGS.items()
        if target != "restarted" or setting["wait_for_ready"]
    ]
