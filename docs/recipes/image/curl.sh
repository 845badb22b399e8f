#!/usr/bin/env bash
# Asks about an image.
set -euo pipefail

base64 -w0 photo.png | jq -R '{
  model: "support",
  messages: [{role: "user", content: [
    {type: "text", text: "What is this?"},
    {type: "image_url", image_url: {url: "data:image/png;base64,\(.)"}}
  ]}]
}' |
  curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
    -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d @- |
  jq -r '.choices[0].message.content'
