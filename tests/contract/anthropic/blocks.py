"""Content blocks of Anthropic's Messages API, and a conversation that calls a tool."""

THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "EqQBCgIYAhIM"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 18446744073709551615, "a": 1}}
USER = {"role": "user", "content": "hi"}
RESULT = {"role": "tool", "tool_call_id": "toolu_1", "content": "42"}
