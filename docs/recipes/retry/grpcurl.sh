#!/usr/bin/env bash
# Streams an answer, and asks again under the same key if the stream breaks.
set -euo pipefail

key=$(cat /proc/sys/kernel/random/uuid)
for attempt in 1 2 3 4; do
  if chunks=$(grpcurl -plaintext -H "authorization: Bearer $KEY" -H "idempotency-key: $key" \
    -d '{"model": "smollm2", "messages": [{"role": "user", "text": "What is the capital of France?"}]}' \
    127.0.0.1:50051 parley.v1.ChatCompletions/StreamChatCompletion 2>/dev/null); then
    jq -j '.choices[0].delta.content // empty' <<<"$chunks"
    echo
    exit
  fi
  sleep "$attempt"
done
exit 1
