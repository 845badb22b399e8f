#!/usr/bin/env bash
# Prints an answer while it arrives.
set -euo pipefail

curl -sS -N --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"model": "smollm2", "stream": true, "messages": [{"role": "user", "content": "What is the capital of France?"}]}' |
  sed -un 's/^data: {/{/p' | # without comments and [DONE]
  jq -j --unbuffered '.choices[0].delta.content // empty'
echo
