#!/usr/bin/env bash
# Asks a question.
set -euo pipefail

grpcurl -plaintext -H "authorization: Bearer $KEY" \
  -d '{"model": "smollm2", "messages": [{"role": "user", "text": "What is the capital of France?"}]}' \
  127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion |
  jq -r '.choices[0].message.text'
