"""Failed authentications are counted for each client address."""

import asyncio

import pytest

from parley.core.errors import InvalidApiKey, RateLimited
from parley.core.ports import Caller, Credentials
from parley.rpc.address_failures import AddressFailures, network
from parley.rpc.authentication import CLIENT_ADDRESS, Authentication
from parley.rpc.call import Call
from parley.rpc.metadata.challenges import Challenges

BURST = 100


class Keys:
    """Accepts one key."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of the key `Bearer sk-valid`. Raises InvalidApiKey."""
        if credentials.authorization != "Bearer sk-valid":
            raise InvalidApiKey
        return Caller("ada", "key_1")


def _call(authorization: str, address: str = "192.0.2.1") -> Call:
    task = asyncio.current_task()
    assert task is not None
    return Call("ListModels", "1", "1", {"authorization": authorization, CLIENT_ADDRESS: address}, task)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:b", "a:b"),
    ],
)
def test_the_counted_part_of_an_address(address: str, expected: str) -> None:
    """An IPv4 address counts as it is; of an IPv6 address the network of 64 bits counts."""
    assert expected == network(address)


def test_the_limit_of_an_address() -> None:
    """An address has 100 failures at once and then one a second; a full bucket is forgotten."""
    now = [1000.0]
    failures = AddressFailures(lambda: now[0])
    assert [None] * BURST == [failures.record("192.0.2.1").retry_after for _ in range(BURST)]
    assert failures.is_limited("192.0.2.1")
    assert not failures.is_limited("192.0.2.2")
    assert (BURST + 1, 1) == ((last := failures.record("192.0.2.1")).count, last.retry_after)
    now[0] += 1
    assert not failures.is_limited("192.0.2.1")
    assert failures.record("192.0.2.1").retry_after is None
    now[0] += BURST
    assert 1 == failures.record("192.0.2.1").count


def test_a_flood_writes_few_lines() -> None:
    """Of one address the first ten failures and then the powers of two are logged; of many addresses twenty at once."""
    failures = AddressFailures(lambda: 0.0)
    logged = [failure.count for failure in (failures.record("a") for _ in range(1000)) if failure.is_logged]
    assert [*range(1, 11), 16, 32, 64, 128, 256, 512] == logged
    assert 4 == sum(failures.record(f"192.0.2.{number}").is_logged for number in range(200))


async def test_a_valid_key_succeeds_beside_a_flood_from_its_address() -> None:
    """Beyond the limit invalid keys are RATE_LIMITED with a delay, and a valid one from the same address succeeds."""
    authentication = Authentication(Keys(), Challenges(None))
    for _ in range(BURST):
        with pytest.raises(InvalidApiKey):
            await authentication.authenticate(_call("Bearer sk-wrong"))
    with pytest.raises(RateLimited) as limited:
        await authentication.authenticate(_call("Bearer sk-wrong"))
    assert 1 == limited.value.retry_after
    valid = _call("Bearer sk-valid")
    await authentication.authenticate(valid)
    assert valid.caller is not None
    assert "ada" == valid.caller.account
    with pytest.raises(InvalidApiKey):
        await authentication.authenticate(_call("Bearer sk-wrong", "192.0.2.2"))


async def test_the_log_line_has_the_address_and_the_cause() -> None:
    """A failure adds the client's address, the fault of the credential and the count to the log line."""
    call = _call("Bearer sk-wrong")
    with pytest.raises(InvalidApiKey):
        await Authentication(Keys(), Challenges(None)).authenticate(call)
    assert {"credential": "unknown", "client": "192.0.2.1", "failures": 1} == call.log_fields
