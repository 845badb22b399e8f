-- Parses the body of a request once, before the transcoder, and rewrites what the transcoder would lose:
--
-- * Unknown members of an object move, as their exact text and in their order, to one string field of that object
--   (`extra_json`, at the top `extra_body_json`). The transcoder would drop them.
-- * JSON Schemas move as text to `parameters_json` and `schema_json`. Other values move like unknown members if they have
--   numbers that a double does not represent as written, or keys that OpenAI's API does not have there: the transcoder
--   converts all numbers to doubles, and loses the order of keys.
-- * A value of a wrong type, or a duplicate field, is reported with its path. The value is removed, so that the service can
--   validate the rest.

local edits = require("edits")
local json = require("json")
local objects = require("objects")
local schema = require("schema")

local find, sub = string.find, string.sub
local OPENING_BRACE, BOM = ("{"):byte(), "\239\187\191"

-- Whether the content is UTF-16 or UTF-32: it begins with a byte order mark, or has null bytes in JSON's ASCII characters.
local function is_wide(content)
  return find(content, "^[^%z]?[^%z]?[^%z]?%z") ~= nil or find(content, "^\255\254") ~= nil or find(content, "^\254\255") ~= nil
end

local function read_body(text, kind)
  if is_wide(text) then
    error(json.NOT_UTF8, 0)
  end
  json.check_escapes(text)
  local at, first = json.skip_space(text, 1)
  if first == nil then
    return #text > 0 and json.MALFORMED or nil
  end
  local last = first == OPENING_BRACE and objects.read(text, at, kind, 0) or json.value_end(text, at, first)
  if json.skip_space(text, last + 1) <= #text then
    error(json.MALFORMED, 0)
  end
  return first ~= OPENING_BRACE and json.NO_OBJECT or nil
end

local body = {}

-- Reads a body of the type; a byte order mark is ignored (RFC 8259, 8.1). Returns a table:
--   failure       a constant of json.lua, nil if the body can be parsed
--   faults        the faults, {path, rule, kind} each
--   is_unusable   whether the transcoder cannot read the rest of the body
--   json          the rewritten body, nil if it is unchanged
--   stream        the value of `stream`, nil if absent or null
--   temperature   the text of `temperature`, nil if absent or null
--   no_messages   whether `messages` is absent
function body.read(content, kind)
  local has_mark, messages = sub(content, 1, 3) == BOM, schema[kind].fields.messages
  local text = has_mark and sub(content, 4) or content
  local notes, root = objects.begin(text)
  edits.begin(text)
  local could, failure = pcall(read_body, text, schema[kind])
  local result = { failure = failure, temperature = notes.temperature, is_unusable = notes.is_unusable }
  result.no_messages = messages and messages.seen ~= root
  if notes.stream then
    result.stream = notes.stream == "true"
  end
  local faults, changed = edits.finish()
  result.faults = faults
  if could then
    result.json = changed or has_mark and text or nil
  end
  return result
end

return body
