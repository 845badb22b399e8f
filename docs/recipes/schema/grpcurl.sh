#!/usr/bin/env bash
# Gets an answer as JSON with a schema.
set -euo pipefail

schema='{
  "type": "object",
  "properties": {"capital": {"type": "string", "maxLength": 20}},
  "required": ["capital"],
  "additionalProperties": false
}'
jq -n --arg schema "$schema" '{
  model: "smollm2",
  messages: [{role: "user", text: "What is the capital of France?"}],
  response_format: {json_schema: {name: "capital", strict: true, schema_json: $schema}}
}' |
  grpcurl -plaintext -H "authorization: Bearer $KEY" -d @ \
    127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion |
  jq -r '.choices[0].message.text | fromjson | .capital'
