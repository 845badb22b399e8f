"""The cache of a model through `parley up`: OpenAI's SDK, two workers, two accounts, the command, a reload."""

import json
from pathlib import Path
from typing import Any

import openai

from tests.processes import Parley, run_here, started, until
from tests.upstream import ScriptedUpstream, completion

CONFIG = """
backends: {{up: {{kind: openai, base_url: "{url}"}}}}
models: [{{id: faq, targets: [{{backend: up, model: {model}}}], cache: {{ttl: 1h}}}}]
"""


def _ask(client: openai.OpenAI, text: str = "Hi", **headers: str) -> tuple[str | None, str]:
    """Asks with temperature 0; returns `x-parley-cache` and the text."""
    response = client.chat.completions.with_raw_response.create(
        model="faq",
        messages=[{"role": "user", "content": text}],
        temperature=0,
        extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    return response.headers.get("x-parley-cache"), response.parse().choices[0].message.content or ""


def _streamed(client: openai.OpenAI) -> str:
    stream = client.chat.completions.create(
        model="faq", messages=[{"role": "user", "content": "Hi"}], temperature=0, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def _client(parley: Parley, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{parley.http}/v1", api_key=key, max_retries=0)


def _sizes(options: tuple[str, ...]) -> list[Any]:
    """Returns what `parley cache` counts."""
    sizes: list[Any] = json.loads(run_here("cache", "--json", *options).stdout)
    return sizes


def test_answers_are_kept(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Both workers return the kept answer to its account only, until it is cleared or its target is another one."""
    file = tmp_path / "parley.yaml"
    file.write_text(CONFIG.format(url=upstream.url, model="one"))
    with started("--config", str(file), "--workers", "2", folder=tmp_path) as parley:
        options = ("--config", str(file), "--state-dir", str(tmp_path / "state"))
        made = run_here("keys", "create", "--name", "bob", "--account", "bob", "--json", *options)
        upstream.answer(*[completion(text) for text in ("one", "bob's", "fresh", "cleared", "reloaded")])
        with _client(parley, parley.key) as ada, _client(parley, json.loads(made.stdout)["key"]) as bob:
            assert ("miss", "one") == _ask(ada)
            until(lambda: 1 == len(_sizes(options)), "the answer is kept")
            assert {("hit", "one")} == {_ask(_client(parley, parley.key)) for _ in range(8)}
            assert "one" == _streamed(ada)
            assert ("miss", "bob's") == _ask(bob)
            assert ("bypass", "fresh") == _ask(ada, Cache_Control="no-cache")
            until(lambda: ("hit", "fresh") == _ask(ada), "the new answer is kept")
            assert "Removed 1 answer.\n" == run_here("cache", "clear", "--account", "default", *options).stdout
            assert ("miss", "cleared") == _ask(ada)
            file.write_text(CONFIG.format(url=upstream.url, model="two"))
            assert 0 == run_here("reload", "--state-dir", str(tmp_path / "state")).returncode
            assert ("miss", "reloaded") == _ask(ada)
            assert 5 == len(upstream.requests)
