#!/usr/bin/env bash
# Prints the tokens of an answer, and where it came from.
set -euo pipefail

answer=$(curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}')
jq -r '"\(.usage.total_tokens) tokens"' <<<"$answer"

curl -sS --fail-with-body -H "Authorization: Bearer $KEY" \
  "http://127.0.0.1:8080/api/v1/sessions/$(jq -r .chatSessionId <<<"$answer")/messages" |
  jq -r '.messages[-1].receipt.attempts[] | "\(.model) \(.outcome)"'
