#!/usr/bin/env bash
# Asks two questions in one session; the second request has only the second question.
set -euo pipefail

ask() {
  grpcurl -plaintext -H "authorization: Bearer $KEY" -d "$1" \
    127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion
}

answer=$(ask '{"model": "smollm2", "messages": [{"role": "user", "text": "What is the capital of France?"}]}')
jq -r '.choices[0].message.text' <<<"$answer"

session=$(jq '.chatSessionId' <<<"$answer") # with its quotes
ask '{"model": "smollm2", "chatSessionId": '"$session"', "messages": [{"role": "user", "text": "And of Germany?"}]}' |
  jq -r '.choices[0].message.text'
