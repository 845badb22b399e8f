-- GENERATED from protos/ by `make gen`: the JSON objects of the bodies that the transcoder parses. A row for each type:
--   extra          the field for unknown members; without it, the transcoder drops them
--   extra_number   its number
--   fields         by name: the kind of the value (see schema.lua) and the number; `of` is the type of an object,
--                  `text` the field for the exact text of the value, `name` the documented name where it differs,
--                  `ranges` the lowest and the highest value in the dialects with a range of their own
return {
  AddSessionMessagesRequest = {
    fields = {
      chatSessionId = { "string", 1, name = "chatSessionId" },
      messages = { "objects", 2, of = "Message" },
      metadata = { "string_map", 4 },
      model = { "string", 3 },
      session_id = { "string", 1, name = "chatSessionId" },
    },
  },
  ApproximateLocation = {
    extra = "extra_json",
    extra_number = 6,
    fields = {
      city = { "string", 1 },
      country = { "string", 2 },
      region = { "string", 3 },
      timezone = { "string", 4 },
    },
  },
  Audio = {
    extra = "extra_json",
    extra_number = 6,
    fields = {
      data = { "string", 3 },
      expires_at = { "uint32", 2 },
      id = { "string", 1 },
      transcript = { "string", 4 },
    },
  },
  AudioOutput = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      format = { "string", 2 },
      voice = { "value", 1 },
    },
  },
  CreateChatCompletionRequest = {
    extra = "extra_body_json",
    extra_number = 37,
    fields = {
      audio = { "object", 34, of = "AudioOutput" },
      chatSessionId = { "string", 5, name = "chatSessionId" },
      continue_final_message = { "bool", 41 },
      extra_body = { "struct", 36, text = "extra_body_json" },
      extra_body_json = { "string", 37 },
      frequency_penalty = { "double", 13 },
      function_call = { "value", 23 },
      functions = { "objects", 22, of = "FunctionDefinition" },
      logit_bias = { "double_map", 14 },
      logprobs = { "bool", 15 },
      max_completion_tokens = { "uint32", 11 },
      max_tokens = { "uint32", 10 },
      messages = { "objects", 2, of = "Message" },
      metadata = { "string_map", 31 },
      modalities = { "strings", 33 },
      model = { "string", 1 },
      moderation = { "object", 40, of = "ModerationOptions" },
      n = { "uint32", 8 },
      parallel_tool_calls = { "bool", 21 },
      prediction = { "object", 32, of = "Prediction" },
      presence_penalty = { "double", 12 },
      prompt_cache_key = { "string", 28 },
      prompt_cache_options = { "object", 39, of = "PromptCacheOptions" },
      prompt_cache_retention = { "string", 38 },
      reasoning_effort = { "string", 25 },
      response_format = { "object", 24, of = "ResponseFormat" },
      safety_identifier = { "string", 29 },
      seed = { "int64", 17 },
      service_tier = { "string", 27 },
      session_id = { "string", 5, name = "chatSessionId" },
      stop = { "value", 9 },
      store = { "bool", 30 },
      stream = { "bool", 3 },
      stream_options = { "object", 4, of = "StreamOptions" },
      temperature = { "double", 6, ranges = { upchatty = { 0, 1 } } },
      tool_choice = { "value", 20 },
      tools = { "objects", 19, of = "Tool" },
      top_logprobs = { "uint32", 16 },
      top_p = { "double", 7 },
      user = { "string", 18 },
      verbosity = { "string", 26 },
      web_search_options = { "object", 35, of = "WebSearchOptions" },
    },
  },
  CustomCall = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      input = { "string", 2 },
      name = { "string", 1 },
    },
  },
  CustomTool = {
    extra = "extra_json",
    extra_number = 5,
    fields = {
      description = { "string", 2 },
      format = { "struct", 3 },
      name = { "string", 1 },
    },
  },
  ForkSessionRequest = {
    fields = {
      chatSessionId = { "string", 1, name = "chatSessionId" },
      session_id = { "string", 1, name = "chatSessionId" },
      through_turn = { "uint32", 2 },
    },
  },
  FunctionCall = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      arguments = { "string", 2 },
      name = { "string", 1 },
    },
  },
  FunctionDefinition = {
    extra = "extra_json",
    extra_number = 7,
    fields = {
      description = { "string", 2 },
      name = { "string", 1 },
      parameters = { "struct", 3, text = "parameters_json" },
      parameters_json = { "string", 5 },
      strict = { "bool", 4 },
    },
  },
  JsonSchema = {
    extra = "extra_json",
    extra_number = 7,
    fields = {
      description = { "string", 2 },
      name = { "string", 1 },
      schema = { "struct", 3, text = "schema_json" },
      schema_json = { "string", 5 },
      strict = { "bool", 4 },
    },
  },
  Message = {
    extra = "extra_json",
    extra_number = 12,
    fields = {
      annotations = { "structs", 9 },
      audio = { "object", 10, of = "Audio" },
      content = { "value", 2 },
      function_call = { "object", 6, of = "FunctionCall" },
      name = { "string", 3 },
      reasoning_content = { "string", 8 },
      refusal = { "string", 7 },
      role = { "string", 1 },
      tool_call_id = { "string", 5 },
      tool_calls = { "objects", 4, of = "ToolCall" },
    },
  },
  ModerationOptions = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      model = { "string", 1 },
      policy = { "object", 2, of = "ModerationPolicy" },
    },
  },
  ModerationPolicy = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      input = { "object", 1, of = "ModerationRule" },
      output = { "object", 2, of = "ModerationRule" },
    },
  },
  ModerationRule = {
    extra = "extra_json",
    extra_number = 3,
    fields = {
      mode = { "string", 1 },
    },
  },
  Prediction = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      content = { "value", 2 },
      type = { "string", 1 },
    },
  },
  PromptCacheOptions = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      mode = { "string", 1 },
      ttl = { "string", 2 },
    },
  },
  ResponseFormat = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      json_schema = { "object", 2, of = "JsonSchema" },
      type = { "string", 1 },
    },
  },
  StreamOptions = {
    extra = "extra_json",
    extra_number = 3,
    fields = {
      include_usage = { "bool", 1 },
    },
  },
  Tool = {
    extra = "extra_json",
    extra_number = 5,
    fields = {
      ["function"] = { "object", 2, of = "FunctionDefinition" },
      custom = { "object", 3, of = "CustomTool" },
      type = { "string", 1 },
    },
  },
  ToolCall = {
    extra = "extra_json",
    extra_number = 6,
    fields = {
      ["function"] = { "object", 3, of = "FunctionCall" },
      custom = { "object", 4, of = "CustomCall" },
      id = { "string", 1 },
      type = { "string", 2 },
    },
  },
  UpdateSessionRequest = {
    fields = {
      chatSessionId = { "string", 1, name = "chatSessionId" },
      labels = { "struct", 3 },
      session_id = { "string", 1, name = "chatSessionId" },
      title = { "string", 2 },
    },
  },
  UserLocation = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      approximate = { "object", 2, of = "ApproximateLocation" },
      type = { "string", 1 },
    },
  },
  WebSearchOptions = {
    extra = "extra_json",
    extra_number = 4,
    fields = {
      search_context_size = { "string", 1 },
      user_location = { "object", 2, of = "UserLocation" },
    },
  },
}
