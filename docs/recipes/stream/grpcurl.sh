#!/usr/bin/env bash
# Prints an answer while it arrives.
set -euo pipefail

grpcurl -plaintext -H "authorization: Bearer $KEY" \
  -d '{"model": "smollm2", "messages": [{"role": "user", "text": "What is the capital of France?"}]}' \
  127.0.0.1:50051 parley.v1.ChatCompletions/StreamChatCompletion |
  jq -j --unbuffered '.choices[0].delta.content // empty'
echo
