#!/usr/bin/env bash
# Asks two questions in one session; the second request has only the second question.
set -euo pipefail

ask() {
  curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
    -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d "$1"
}

answer=$(ask '{"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}')
jq -r '.choices[0].message.content' <<<"$answer"

session=$(jq '.chatSessionId' <<<"$answer") # with its quotes
ask '{"model": "smollm2", "chatSessionId": '"$session"', "messages": [{"role": "user", "content": "And of Germany?"}]}' |
  jq -r '.choices[0].message.content'
