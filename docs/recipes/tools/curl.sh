#!/usr/bin/env bash
# Lets the model call a function once.
set -euo pipefail

ask() {
  curl -sS --fail-with-body http://127.0.0.1:8080/v1/chat/completions \
    -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d @-
}

tools='[{"type": "function", "function": {"name": "get_weather", "description": "Returns the weather of a city.",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]'
answer=$(ask <<<'{"model": "support", "messages": [{"role": "user", "content": "How warm is Paris?"}], "tools": '"$tools"'}')
city=$(jq -r '.choices[0].message.tool_calls[0].function.arguments | fromjson | .city' <<<"$answer")

# The session has the question and the call; the result alone is new.
jq --argjson tools "$tools" --arg city "$city" '{
  model: "support",
  chatSessionId,
  tools: $tools,
  messages: [.choices[0].message.tool_calls[] |
    {role: "tool", tool_call_id: .id, content: ({city: $city, celsius: 21} | tojson)}]
}' <<<"$answer" | ask | jq -r '.choices[0].message.content'
