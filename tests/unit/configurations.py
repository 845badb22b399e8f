"""Configurations for the tests of their loader."""

import re
from typing import Any

GOOD = """\
backends:
  local: {kind: llama_cpp, slots: 2}
  vllm: {kind: openai, base_url: "http://10.0.0.5:8000/v1", api_key: "secret-word"}
models:
  - id: one
    targets: [{backend: vllm, model: qwen3-8b, weight: 3}, {backend: local}]
    timeouts: {connect: 500ms, first_token: 5s, stream_idle: 10m, total: 2h}
    defaults: {temperature: 0.7}
  - id: two
    targets: [{backend: local}]
    sessions: off
default_model: one
limits:
  key: {requests_per_minute: 60}
  account: {requests_per_minute: 600, tokens_per_minute: 100000}
"""


def without_lines(error: Any) -> str:
    """Returns the text of an error without line numbers."""
    return re.sub(r"^f:\d+", "f", str(error), flags=re.MULTILINE)


ROUTED = """\
backends:
  a: {kind: openai, base_url: "http://10.0.0.5/v1", prefill: off, health: {path: /ok, interval: 2s}, connections: 5}
  claude: {kind: anthropic, api_key: "secret-word"}
  eu: {kind: parley, target: "dns:///parley.eu:50051", tls: true, api_key: "secret-word", health: {timeout: 1s}}
  tail: {kind: any_llm, provider: mistral, api_key: "secret-word"}
models:
  - id: one
    targets: [{backend: a, model: x, max_concurrent: 4, max_queued: 8}, {backend: eu}]
    fallbacks: [two]
    retries: {attempts: 4, share: 0.5}
    on_stream_failure: fail
    hedge: 800ms
  - {id: two, coalesce: 50ms,
     targets: [{backend: claude, model: c}, {backend: a, model: x, max_concurrent: 4, max_queued: 8}]}
prices:
  a/x: {prompt: 0.5, completion: 2, cached_prompt: 0}
  eu: {prompt: 1, completion: 1}
"""
