"""Streams an answer with two parallel tool calls with LlamaIndex's client. Prints the calls, one line per run."""

import json
import os
import sys

from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def get_weather(city: str, unit: str = "celsius") -> str:
    """Today's weather."""
    return f"20° {unit} in {city}"


llm = OpenAILike(
    model="scripted",
    api_base=f"{os.environ['PARLEY_URL']}/v1",
    api_key=os.environ["OPENAI_API_KEY"],
    is_chat_model=True,
    is_function_calling_model=True,
    max_retries=0,
)
tools = [FunctionTool.from_defaults(get_weather)]
for _ in range(int(sys.argv[1])):
    *_, last = llm.stream_chat_with_tools(tools, user_msg="Where is it warmer?", allow_parallel_tool_calls=True)
    calls = llm.get_tool_calls_from_response(last, error_on_no_tool_call=False)
    print(json.dumps([[call.tool_name, call.tool_kwargs] for call in calls]), flush=True)
