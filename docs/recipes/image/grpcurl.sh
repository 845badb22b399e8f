#!/usr/bin/env bash
# Asks about an image.
set -euo pipefail

base64 -w0 photo.png | jq -R '{
  model: "support",
  messages: [{role: "user", parts: [{text: "What is this?"}, {image: {data: ., mime_type: "image/png"}}]}]
}' |
  grpcurl -plaintext -H "authorization: Bearer $KEY" -d @ \
    127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion |
  jq -r '.choices[0].message.text'
