#!/usr/bin/env bash
# Gets an answer as JSON with a schema.
set -euo pipefail

curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{
    "model": "smollm2",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "capital", "strict": true, "schema": {
      "type": "object",
      "properties": {"capital": {"type": "string", "maxLength": 20}},
      "required": ["capital"],
      "additionalProperties": false
    }}}
  }' | jq -r '.choices[0].message.content | fromjson | .capital'
