"""Creates the configured guards."""

from typing import TYPE_CHECKING

from parley.config import Config, ConfigError
from parley.config import Guard as GuardConfig
from parley.core.ports import Guard

if TYPE_CHECKING:
    from parley.core.guards.model_guards import ModelGuards


def open_guards(config: Config) -> "ModelGuards | None":
    """Creates the guards, which connect at their first check; None without guards.

    Requires a running event loop.

    Raises:
        ConfigError: A file of a guard cannot be read.
    """
    if not config.guards:
        return None
    from parley.core.guards.model_guards import ModelGuards  # loaded only where guards are configured

    guards = {}
    for name, guard in config.guards.items():
        try:
            guards[name] = _open(guard)
        except ConfigError as error:
            raise ConfigError(f"guards.{name}.{error}") from error
    return ModelGuards(config, guards)


def _open(guard: GuardConfig) -> Guard:
    # Each is imported where it is used: expressions need RE2, a service needs a client of gRPC.
    if guard.address is not None:
        from parley.guards.remote import RemoteGuard

        return RemoteGuard(guard)
    from parley.guards.patterns import PatternGuard

    return PatternGuard(guard)
