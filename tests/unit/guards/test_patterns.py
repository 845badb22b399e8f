"""The guard in the package: expressions, shapes of secrets, positions in code points."""

import asyncio
import re
import time

import pytest

from parley.config import Guard
from parley.config.guards import SECRET_OVERLAP
from parley.core.guards.decisions import Redaction, Refusal, decision, redacted
from parley.core.guards.windows import ChoiceWindows
from parley.guard.v1.guard_pb2 import CheckRequest, Unit
from parley.guards.patterns import PatternGuard
from parley.guards.secret_shapes import SHAPES
from parley.v1.message_pb2 import ChunkChoice, Delta

KEY_BODY = "MIIEowIBAAKCAQEA" + "b3BlbnNzaC1rZXktdjEAAAAA\n" * 12
PRIVATE_KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}-----END RSA PRIVATE KEY-----"
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0{'x' * 300}.dozjgNryP4J3jVmNHl0w5N"
# Made up, in the form that each service documents.
SECRETS = {
    "private_key": [PRIVATE_KEY, PRIVATE_KEY.replace("RSA ", ""), PRIVATE_KEY.replace("RSA ", "OPENSSH ")],
    "anthropic_key": ["sk-ant-api03-" + "Ab1_" * 24],
    "openai_key": ["sk-proj-" + "Ab1-" * 30, "sk-" + "a1B2" * 12, "sk-svcacct-" + "x9" * 30],
    "openrouter_key": ["sk-or-v1-" + "0a" * 32],
    "aws_access_key": ["AKIA" + "IOSFODNN7EXAMPLE"[:16].replace("8", "2")],
    "aws_secret_key": ["aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
    "github_token": ["ghp_" + "a1B2" * 9, "github_pat_" + "A1" * 11 + "_" + "b2" * 29],
    "gitlab_token": ["glpat-" + "a1B2-" * 4],
    "slack_token": ["xoxb-" + "123456789012-abcdef", "xapp-1-" + "A0123456789-abc"],
    "slack_webhook": ["https://hooks.slack.com/services/" + "T0AB12CD3/B0AB12CD3/abcdefghijkl"],
    "google_api_key": ["AIza" + "SyA-1_b2" * 4 + "abc"],
    "google_oauth_token": ["ya29." + "a0Af_b-C" * 5],
    "groq_key": ["gsk_" + "a1B2" * 13],
    "huggingface_token": ["hf_" + "aBcD" * 9],
    "stripe_key": ["sk_live_" + "a1B2" * 6, "whsec_" + "a1B2" * 8],
    "sendgrid_key": ["SG." + "a1B2-c3_" * 3 + "." + "a1B2" * 10],
    "npm_token": ["npm_" + "a1B2" * 9],
    "pypi_token": ["pypi-AgEIcHlwaS5vcmc" + "a1B2" * 20],
    "digitalocean_token": ["dop_v1_" + "0a" * 32],
    "jwt": [JWT],
    "parley_key": ["sk-" + "a1B_" * 10 + "xyz"],
}
REDACTING = PatternGuard(Guard(secrets=True, replacement="[x]"))
INNOCENT = (
    "The task-based risk-averse desk-jockey asked for skill-building. eyJ is a prefix; see https://slack.com/services. "
    "commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad, id 550e8400-e29b-41d4-a716-446655440000, "
    "-----BEGIN PUBLIC KEY----- AKIATOOSHORT ghp_short sk-learn sk-4 hf_hub_download npm_config_registry "
    "The quick brown fox jumps over the lazy dog 1234567890 times, AIzamir said."
)


def check(guard: PatternGuard, text: str, *, last: bool = True) -> str | Refusal:
    """Returns the text as the guard lets it pass, or its refusal."""
    request = CheckRequest(units=[Unit(text=text)], last=last)
    found = decision(request, asyncio.run(guard.check(request)))
    if isinstance(found, Redaction):
        return redacted(text, found.spans[0])
    return found or text


def test_every_shape_has_an_example() -> None:
    """The table above has all shapes."""
    assert [shape.name for shape in SHAPES] == list(SECRETS)


@pytest.mark.parametrize(("name", "secret"), [(name, one) for name, some in SECRETS.items() for one in some])
def test_a_secret_is_found_whole(name: str, secret: str) -> None:
    """A secret within a text is replaced whole, with nothing around it, and named in a refusal."""
    shown = secret.removeprefix("aws_secret_access_key = ")
    before = secret.removesuffix(shown)
    assert f"é «{before}[x]» 😀" == check(REDACTING, f"é «{secret}» 😀")
    refusal = check(PatternGuard(Guard(secrets=True, action="refuse")), f"It is {secret}.")
    assert isinstance(refusal, Refusal)
    assert (name, False) == (refusal.reason, shown in refusal.message)


async def test_texts_are_checked_together_as_each_alone() -> None:
    """A request of many texts has the findings of each, at every position in a batch, also at the ends of the texts."""
    texts = [INNOCENT, *(one for some in SECRETS.values() for one in some), "end XY", "XY", "x" * 70_000, "AKIA"]
    guard = PatternGuard(Guard(secrets=True, patterns=["^XY", "x+"]))
    together = await guard.check(CheckRequest(units=[Unit(text=text) for text in texts], last=True))
    alone = [(await guard.check(CheckRequest(units=[Unit(text=text)], last=True))).redact.spans for text in texts]
    assert [(number, one.start, one.end) for number, some in enumerate(alone) for one in some] == [
        (one.unit, one.start, one.end) for one in together.redact.spans
    ]
    assert len(SECRETS) < len(together.redact.spans)


def test_ordinary_text_has_no_secrets() -> None:
    """Words and ids that look a little like secrets pass."""
    assert INNOCENT == check(PatternGuard(Guard(secrets=True)), INNOCENT)


async def streamed(secret: str, size: int, window: int, overlap: int) -> str:
    """Returns a stream with a secret, of chunks of a size, as the guard lets it pass."""
    text = f"Take {secret} and go."
    windows, passed = ChoiceWindows(window, overlap), []
    chunks = [ChunkChoice(index=0, delta=Delta(content=text[at : at + size])) for at in range(0, len(text), size)]
    for chunk in [*chunks, ChunkChoice(index=0, finish_reason="stop")]:
        windows.add(chunk)
        if windows.is_due:
            places, units = windows.units()
            request = CheckRequest(units=units, last=windows.is_finished)
            found = decision(request, await REDACTING.check(request)) if units else None
            spans = found.spans if isinstance(found, Redaction) else {}
            passed += windows.release({places[unit]: some for unit, some in spans.items()}, last=windows.is_finished)
    return "".join(one.delta.content for one in passed)


@pytest.mark.parametrize("secret", [JWT, PRIVATE_KEY, SECRETS["openai_key"][0]], ids=["jwt", "private key", "key"])
async def test_a_long_secret_is_found_in_a_stream(secret: str) -> None:
    """A secret that is longer than window and overlap leaves no part of itself in a stream."""
    assert "Take [x] and go." == await streamed(secret, 7, 20, 40)


async def test_every_secret_is_found_wherever_windows_end() -> None:
    """With the least overlap that `secrets` allows, no part of a secret leaves, wherever windows end."""
    for secret in (one for some in SECRETS.values() for one in some):
        shown = secret.removeprefix("aws_secret_access_key = ")
        expected = f"Take {secret.removesuffix(shown)}[x] and go."
        assert expected == await streamed(secret, 3, 1, SECRET_OVERLAP), secret


async def test_a_token_is_found_wherever_a_window_ends() -> None:
    """A window that ends inside of a secret is redacted from the secret's beginning, at each length of the window."""
    guard = PatternGuard(Guard(secrets=True))
    for length in range(24, len(JWT)):
        request = CheckRequest(units=[Unit(text=JWT[:length])])
        assert [(0, length)] == [(one.start, one.end) for one in (await guard.check(request)).redact.spans]


def test_expressions_that_python_would_not_finish_take_no_time() -> None:
    """An expression that backtracks exponentially in Python's engine takes time in proportion to the text."""
    guard = PatternGuard(Guard(patterns=["(a+)+b", "(x|xx)+y"]))
    started = time.process_time()
    assert check(guard, "a" * 200_000) == "a" * 200_000
    assert time.process_time() - started < 5


def test_overlapping_findings_are_one() -> None:
    """What several expressions find at one place is replaced once; a group named `secret` narrows it down."""
    guard = PatternGuard(Guard(patterns=["abcd", "cdef", "key: (?P<secret>[0-9]+)"], replacement="-"))
    assert "x - y, key: -; ß-" == check(guard, "x abcdef y, key: 123; ßabcd")


def test_the_shapes_need_no_backtracking() -> None:
    """All expressions are of RE2: no backreferences and no assertions of context."""
    assert not any(re.search(r"\(\?[=!<]|\\[1-9]", shape.pattern.replace("(?P<", "")) for shape in SHAPES)
