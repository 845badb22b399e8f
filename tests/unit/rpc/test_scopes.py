"""The scopes of methods."""

import importlib
import pkgutil
from typing import get_args

import pytest

from parley import v1
from parley.core.ports import Caller, Scope
from parley.rpc.scopes import PUBLIC, SCOPES

METHODS = {
    method.name
    for module in pkgutil.iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
    for service in importlib.import_module(f"parley.v1.{module.name}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_method_requires_a_scope() -> None:
    """Each method of the descriptors that needs a credential is listed, and each scope has a method.

    A key needs no scope to read its own usage.
    """
    assert METHODS - PUBLIC == set(SCOPES)
    assert set(get_args(Scope)) == set(SCOPES.values()) - {None}
    assert ["GetUsageReport"] == [name for name, scope in SCOPES.items() if scope is None]


@pytest.mark.parametrize("scope", get_args(Scope))
def test_a_caller_has_the_scopes_of_its_key(scope: Scope) -> None:
    """A key with scopes has these alone; a key without scopes has all."""
    assert Caller("a", "k").has_scope(scope)
    assert [scope] == [one for one in get_args(Scope) if Caller("a", "k", scopes=frozenset({scope})).has_scope(one)]
