#!/usr/bin/env bash
# Prints the tokens of an answer, and where it came from.
set -euo pipefail

answer=$(grpcurl -plaintext -H "authorization: Bearer $KEY" \
  -d '{"model": "smollm2", "messages": [{"role": "user", "text": "What is the capital of France?"}]}' \
  127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion)
jq -r '"\(.usage.total_tokens) tokens"' <<<"$answer"

jq '{chatSessionId}' <<<"$answer" |
  grpcurl -plaintext -H "authorization: Bearer $KEY" -d @ 127.0.0.1:50051 parley.v1.Sessions/ListSessionMessages |
  jq -r '.messages[-1].receipt.attempts[] | "\(.model) \(.outcome)"'
