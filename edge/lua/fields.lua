-- GENERATED from protos/ by `make gen`: the JSON objects of the bodies that the transcoder parses. A row for each type:
--   extra    the field for unknown members; without it, the transcoder drops them
--   fields   by name: the kind of the value (see schema.lua); `of` is the type of an object, `text` the field for the
--            exact text of the value, `name` the documented name where it differs, `ranges` the lowest and the highest
--            value in the dialects with a range of their own
return {
  AddSessionMessagesRequest = {
    fields = {
      chatSessionId = { "string", name = "chatSessionId" },
      messages = { "objects", of = "Message" },
      metadata = { "string_map" },
      model = { "string" },
      session_id = { "string", name = "chatSessionId" },
    },
  },
  ApproximateLocation = {
    extra = "extra_json",
    fields = {
      city = { "string" },
      country = { "string" },
      region = { "string" },
      timezone = { "string" },
    },
  },
  Audio = {
    extra = "extra_json",
    fields = {
      data = { "string" },
      expires_at = { "uint32" },
      id = { "string" },
      transcript = { "string" },
    },
  },
  AudioOutput = {
    extra = "extra_json",
    fields = {
      format = { "string" },
      voice = { "value" },
    },
  },
  CreateChatCompletionRequest = {
    extra = "extra_body_json",
    fields = {
      audio = { "object", of = "AudioOutput" },
      chatSessionId = { "string", name = "chatSessionId" },
      continue_final_message = { "bool" },
      extra_body = { "struct", text = "extra_body_json" },
      extra_body_json = { "string" },
      frequency_penalty = { "double" },
      function_call = { "value" },
      functions = { "objects", of = "FunctionDefinition" },
      logit_bias = { "double_map" },
      logprobs = { "bool" },
      max_completion_tokens = { "uint32" },
      max_tokens = { "uint32" },
      messages = { "objects", of = "Message" },
      metadata = { "string_map" },
      modalities = { "strings" },
      model = { "string" },
      moderation = { "object", of = "ModerationOptions" },
      n = { "uint32" },
      parallel_tool_calls = { "bool" },
      prediction = { "object", of = "Prediction" },
      presence_penalty = { "double" },
      prompt_cache_key = { "string" },
      prompt_cache_options = { "object", of = "PromptCacheOptions" },
      prompt_cache_retention = { "string" },
      reasoning_effort = { "string" },
      response_format = { "object", of = "ResponseFormat" },
      safety_identifier = { "string" },
      seed = { "int64" },
      service_tier = { "string" },
      session_id = { "string", name = "chatSessionId" },
      stop = { "value" },
      store = { "bool" },
      stream = { "bool" },
      stream_options = { "object", of = "StreamOptions" },
      temperature = { "double", ranges = { upchatty = { 0, 1 } } },
      tool_choice = { "value" },
      tools = { "objects", of = "Tool" },
      top_logprobs = { "uint32" },
      top_p = { "double" },
      user = { "string" },
      verbosity = { "string" },
      web_search_options = { "object", of = "WebSearchOptions" },
    },
  },
  CustomCall = {
    extra = "extra_json",
    fields = {
      input = { "string" },
      name = { "string" },
    },
  },
  CustomTool = {
    extra = "extra_json",
    fields = {
      description = { "string" },
      format = { "struct" },
      name = { "string" },
    },
  },
  ForkSessionRequest = {
    fields = {
      chatSessionId = { "string", name = "chatSessionId" },
      session_id = { "string", name = "chatSessionId" },
      through_turn = { "uint32" },
    },
  },
  FunctionCall = {
    extra = "extra_json",
    fields = {
      arguments = { "string" },
      name = { "string" },
    },
  },
  FunctionDefinition = {
    extra = "extra_json",
    fields = {
      description = { "string" },
      name = { "string" },
      parameters = { "struct", text = "parameters_json" },
      parameters_json = { "string" },
      strict = { "bool" },
    },
  },
  JsonSchema = {
    extra = "extra_json",
    fields = {
      description = { "string" },
      name = { "string" },
      schema = { "struct", text = "schema_json" },
      schema_json = { "string" },
      strict = { "bool" },
    },
  },
  Message = {
    extra = "extra_json",
    fields = {
      annotations = { "structs" },
      audio = { "object", of = "Audio" },
      content = { "value" },
      function_call = { "object", of = "FunctionCall" },
      name = { "string" },
      reasoning_content = { "string" },
      refusal = { "string" },
      role = { "string" },
      tool_call_id = { "string" },
      tool_calls = { "objects", of = "ToolCall" },
    },
  },
  ModerationOptions = {
    extra = "extra_json",
    fields = {
      model = { "string" },
      policy = { "object", of = "ModerationPolicy" },
    },
  },
  ModerationPolicy = {
    extra = "extra_json",
    fields = {
      input = { "object", of = "ModerationRule" },
      output = { "object", of = "ModerationRule" },
    },
  },
  ModerationRule = {
    extra = "extra_json",
    fields = {
      mode = { "string" },
    },
  },
  Prediction = {
    extra = "extra_json",
    fields = {
      content = { "value" },
      type = { "string" },
    },
  },
  PromptCacheOptions = {
    extra = "extra_json",
    fields = {
      mode = { "string" },
      ttl = { "string" },
    },
  },
  ResponseFormat = {
    extra = "extra_json",
    fields = {
      json_schema = { "object", of = "JsonSchema" },
      type = { "string" },
    },
  },
  StreamOptions = {
    extra = "extra_json",
    fields = {
      include_usage = { "bool" },
    },
  },
  Tool = {
    extra = "extra_json",
    fields = {
      ["function"] = { "object", of = "FunctionDefinition" },
      custom = { "object", of = "CustomTool" },
      type = { "string" },
    },
  },
  ToolCall = {
    extra = "extra_json",
    fields = {
      ["function"] = { "object", of = "FunctionCall" },
      custom = { "object", of = "CustomCall" },
      id = { "string" },
      type = { "string" },
    },
  },
  UpdateSessionRequest = {
    fields = {
      chatSessionId = { "string", name = "chatSessionId" },
      labels = { "struct" },
      session_id = { "string", name = "chatSessionId" },
      title = { "string" },
    },
  },
  UserLocation = {
    extra = "extra_json",
    fields = {
      approximate = { "object", of = "ApproximateLocation" },
      type = { "string" },
    },
  },
  WebSearchOptions = {
    extra = "extra_json",
    fields = {
      search_context_size = { "string" },
      user_location = { "object", of = "UserLocation" },
    },
  },
}
