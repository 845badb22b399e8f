#!/usr/bin/env bash
# Lets the model call a function once.
set -euo pipefail

ask() {
  grpcurl -plaintext -H "authorization: Bearer $KEY" -d @ \
    127.0.0.1:50051 parley.v1.ChatCompletions/CreateChatCompletion
}

tools='[{"function": {"name": "get_weather", "description": "Returns the weather of a city.",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]'
answer=$(ask <<<'{"model": "support", "messages": [{"role": "user", "text": "How warm is Paris?"}], "tools": '"$tools"'}')
city=$(jq -r '.choices[0].message.tool_calls[0].function.arguments | fromjson | .city' <<<"$answer")

# The session has the question and the call; the result alone is new.
jq --argjson tools "$tools" --arg city "$city" '{
  model: "support",
  chatSessionId,
  tools: $tools,
  messages: [.choices[0].message.tool_calls[] |
    {role: "tool", tool_call_id: .id, text: ({city: $city, celsius: 21} | tojson)}]
}' <<<"$answer" | ask | jq -r '.choices[0].message.text'
