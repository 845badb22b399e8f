#!/usr/bin/env bash
# Asks a question.
set -euo pipefail

curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -d '{"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}' |
  jq -r '.choices[0].message.content'
