#!/usr/bin/env bash
# Streams an answer, and asks again under the same key if the stream breaks.
set -euo pipefail

# --retry-all-errors repeats broken connections too, and begins the file anew.
events=$(mktemp)
trap 'rm "$events"' EXIT
curl -sS -N --fail --retry 4 --retry-all-errors --retry-delay 1 -o "$events" \
  http://127.0.0.1:8080/v1/chat/completions \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  -d '{"model": "smollm2", "stream": true, "messages": [{"role": "user", "content": "What is the capital of France?"}]}' \
  2>/dev/null
grep -q '^data: \[DONE\]' "$events" # otherwise the answer is not whole
sed -n 's/^data: {/{/p' "$events" | jq -j '.choices[0].delta.content // empty'
echo
