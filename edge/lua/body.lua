-- Parses the body of a request once, before the transcoder, and rewrites what the transcoder would lose:
--
-- * Unknown members of an object move, as their exact text and in their order, to one string field of that object
--   (`extra_json`, at the top `extra_body_json`). The transcoder would drop them.
-- * JSON Schemas move as text to `parameters_json` and `schema_json`. Other values move like unknown members if they have
--   numbers that a double does not represent as written, or keys that OpenAI's API does not have there: the transcoder
--   converts all numbers to doubles, and loses the order of keys.
-- * A value of a wrong type, or a duplicate field, is reported with its path. The value is removed, so that the service can
--   validate the rest.

local TYPES = require("fields")
local json = require("json")

local byte, concat, find, sub = string.byte, table.concat, string.find, string.sub
local skip_space, key_end, value_end, scalar_end = json.skip_space, json.key_end, json.value_end, json.scalar_end
local QUOTE, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET, COMMA = ('"{[}],'):byte(1, 6)
local TRUE, FALSE, NULL, MINUS, ZERO, NINE = ("tfn-09"):byte(1, 6)
local MAX_FAULTS = 100

-- The keys of content parts, annotations, tool choices, voices and formats of custom tools in OpenAI's API, and those of
-- Anthropic's cache breakpoints: their order has no meaning. Objects with other keys are forwarded as text.
local USUAL = {}
for key in
  ([[type text refusal image_url url detail input_audio data format file filename file_data file_id function name custom id
  allowed_tools mode tools grammar syntax definition url_citation title start_index end_index cache_control ttl]]):gmatch("%S+")
do
  USUAL[key] = true
end

local body = {}

-- The body, the position in it, and the results. Bodies are parsed one at a time, without yielding.
local text, pieces, count, done, faults, notes
local path, depth = {}, 0
local half_pair -- the position of an unpaired surrogate that is not yet reported, or nil
local objects = 0 -- the number of objects parsed so far, over all bodies: each field keeps that of its last object

local function add_fault(rule, sort, name)
  if #faults == MAX_FAULTS then
    return
  end
  local parts = {}
  for level = 1, depth do
    local part = path[level]
    parts[level] = type(part) == "number" and "[" .. part .. "]" or (level > 1 and "." or "") .. part
  end
  parts[depth + 1] = name and (depth > 0 and "." or "") .. name
  faults[#faults + 1] = { concat(parts), rule, sort or "value_error" }
end

-- Copies the text from `done` to before `first`, and replaces `first` to `last` with `replacement`.
local function replace(first, last, replacement)
  pieces[count + 1] = sub(text, done + 1, first - 1)
  pieces[count + 2] = replacement
  count, done = count + 2, last
end

-- Moves from the end of an item to the next item or to the closing bracket; returns the position and the byte there.
local function next_item(last, closing)
  local at, character = skip_space(text, last + 1)
  if character ~= COMMA then
    return at, character == closing and closing or error(json.MALFORMED, 0)
  end
  at, character = skip_space(text, at + 1)
  if character == closing then
    error(json.MALFORMED, 0)
  end
  return at, character
end

-- -------------------------------------------------------------------------------------------- values of known fields
-- Each function takes the position of a value, its first byte, and its field. It returns the position of the value's end,
-- and whether the transcoder would change the value. Null is equivalent to an absent field, unless the field is required.

local function field_error(at, first, field)
  local last = value_end(text, at, first)
  add_fault(field.must_be, first == QUOTE and field.parsing or field.sort)
  replace(at, last, field.neutral or "null")
  return last
end

local function read_string(at, first, field)
  if first == QUOTE or first == NULL and not field.required then
    return scalar_end(text, at, first)
  end
  return field_error(at, first, field)
end

local function read_bool(at, first, field)
  if first == TRUE or first == FALSE or first == NULL then
    return scalar_end(text, at, first)
  end
  return field_error(at, first, field)
end

local COUNT, LEAST, MOST = 2 ^ 32 - 1, "9223372036854775808", "9223372036854775807"

-- Whether the digits exceed the range of an int64; tonumber would round them.
local function is_beyond_int64(token)
  local sign, digits = token:match("^(-?)0*(%d+)$")
  local most = sign == "-" and LEAST or MOST
  return digits == nil or #digits > #most or #digits == #most and digits > most
end

-- Each returns the rule that a number violates and the kind of fault, or nil.
local BREACHES = {
  double = function(value)
    if value ~= value or math.abs(value) == math.huge then
      return "must be a number between -1.8e308 and 1.8e308", "finite_number"
    end
  end,
  uint32 = function(value, _, field)
    if value % 1 ~= 0 then
      return field.must_be, "int_from_float"
    elseif value < 0 then
      return field.must_be, "greater_than_equal"
    elseif value > COUNT then
      return "must be a whole number from 0 to 4294967295", "less_than_equal"
    end
  end,
  int64 = function(value, token, field)
    if value % 1 ~= 0 and math.abs(value) ~= math.huge then
      return field.must_be, "int_from_float"
    elseif math.abs(value) >= 2 ^ 53 and is_beyond_int64(token) then
      local sort = value < 0 and "greater_than_equal" or "less_than_equal"
      return ("must be a whole number from -%s to %s"):format(LEAST, MOST), sort
    end
  end,
}

-- Numbers may be strings, as in protobuf's JSON mapping.
local function read_number(at, first, field)
  if first == NULL then
    return scalar_end(text, at, first)
  elseif first ~= QUOTE and first ~= MINUS and not (first and first >= ZERO and first <= NINE) then
    return field_error(at, first, field)
  end
  local last = scalar_end(text, at, first)
  local token = first == QUOTE and sub(text, at + 1, last - 1) or sub(text, at, last)
  local value = find(token, "^-?%d") and not find(token, "[xX]") and tonumber(token)
  local breach, sort = field.must_be, first == QUOTE and field.parsing or field.sort
  if value then
    breach, sort = BREACHES[field.number](value, token, field)
  end
  if breach then
    add_fault(breach, sort)
    replace(at, last, "null")
  end
  return last
end

local function read_value(at, first)
  return value_end(text, at, first, USUAL)
end

-- Reads the items of an array with `read_item`; any other value is a fault.
local function read_items(at, first, field, read_item)
  if first == NULL and not field.required then
    return scalar_end(text, at, first)
  elseif first ~= OPENING_BRACKET then
    return field_error(at, first, field)
  end
  local character
  depth = depth + 1
  at, character = skip_space(text, at + 1)
  local place = 0
  while character ~= CLOSING_BRACKET do
    path[depth] = place
    at, character = next_item(read_item(at, character, field.item), CLOSING_BRACKET)
    place = place + 1
  end
  depth = depth - 1
  return at
end

-- An array of any values, which is kept unchanged.
local function read_values(at, first, field)
  if first ~= OPENING_BRACKET and first ~= NULL then
    return field_error(at, first, field)
  end
  return value_end(text, at, first, USUAL)
end

local function read_struct(at, first, field)
  if first ~= OPENING_BRACE and first ~= NULL then
    return field_error(at, first, field)
  end
  return value_end(text, at, first, not field.text and USUAL or nil)
end

local read_object -- below

local function read_object_or_null(at, first, field)
  if first == OPENING_BRACE then
    return read_object(at, field.of)
  elseif first == NULL then
    return scalar_end(text, at, first)
  end
  return field_error(at, first, field)
end

local function read_object_item(at, first, item)
  if first == OPENING_BRACE then
    return read_object(at, item.of)
  end
  return field_error(at, first, item)
end

local function read_string_item(at, first, item)
  if first == QUOTE then
    return scalar_end(text, at, first)
  end
  return field_error(at, first, item)
end

local function read_objects(at, first, field)
  return read_items(at, first, field, read_object_item)
end

local function read_strings(at, first, field)
  return read_items(at, first, field, read_string_item)
end

-- An object with any keys. Only the first value of a wrong type is reported.
local function read_map(at, first, field)
  if first == NULL then
    return scalar_end(text, at, first)
  elseif first ~= OPENING_BRACE then
    return field_error(at, first, field)
  end
  local start, fits, character, _ = at, true, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACE do
    _, at, character = key_end(text, at, character)
    local last = value_end(text, at, character)
    fits = fits and field.fits(at, character, last)
    at, character = next_item(last, CLOSING_BRACE)
  end
  if not fits then
    add_fault(field.must_be, field.sort)
    replace(start, at, "null")
  end
  return at
end

local function is_string(_, first)
  return first == QUOTE
end

local function is_double(at, first, last)
  local value = first ~= TRUE and first ~= FALSE and tonumber(sub(text, first == QUOTE and at + 1 or at, first == QUOTE and last - 1 or last))
  return value and math.abs(value) < math.huge
end

-- For each kind of value: its reader, the rule for a value and for an item, and the kinds of faults, which are pydantic's, as
-- FastAPI sends them.
local KINDS = {
  string = { read_string, "a string", sort = "string_type" },
  strings = { read_strings, "an array", "a string", sort = "list_type", item = { sort = "string_type", neutral = '""' } },
  bool = { read_bool, "true or false", sort = "bool_type", parsing = "bool_parsing" },
  double = { read_number, "a number", sort = "float_type", parsing = "float_parsing" },
  uint32 = { read_number, "a whole number, zero or more", sort = "int_type", parsing = "int_parsing" },
  int64 = { read_number, "a whole number", sort = "int_type", parsing = "int_parsing" },
  object = { read_object_or_null, "an object", sort = "model_attributes_type" },
  objects = {
    read_objects,
    "an array",
    "an object",
    sort = "list_type",
    item = { sort = "model_attributes_type", neutral = "{}" },
  },
  value = { read_value },
  struct = { read_struct, "an object", sort = "dict_type" },
  structs = { read_values, "an array", sort = "list_type" },
  string_map = { read_map, "an object whose values are each a string", sort = "dict_type", fits = is_string },
  double_map = { read_map, "an object whose values are each a number", sort = "dict_type", fits = is_double },
}

local FIELDS = {} -- the fields of each type by name; both names of a field have the same entry

local NOTED = { stream = true, temperature = true }

-- Fields that must not be null.
local REQUIRED = {
  CreateChatCompletionRequest = { messages = true },
  Message = { role = true },
  Tool = { type = true },
  FunctionDefinition = { name = true },
  ResponseFormat = { type = true },
  AudioOutput = { format = true },
  Prediction = { type = true },
  ModerationOptions = { model = true },
}

for name, row in pairs(TYPES) do
  FIELDS[name] = { extra = row.extra }
end
for name, row in pairs(TYPES) do
  local fields, canonical = {}, {}
  for key, described in pairs(row.fields) do
    local kind = KINDS[described[1]]
    local documented = described.name or key
    local field = canonical[documented]
      or {
        name = documented,
        read = kind[1],
        number = described[1],
        must_be = kind[2] and "must be " .. kind[2],
        sort = kind.sort,
        parsing = kind.parsing,
        fits = kind.fits,
        of = FIELDS[described.of],
        item = kind.item and {
          must_be = "must be " .. kind[3],
          sort = kind.item.sort,
          neutral = kind.item.neutral,
          of = FIELDS[described.of],
        },
        text = described.text,
        required = REQUIRED[name] and REQUIRED[name][documented],
        noted = name == "CreateChatCompletionRequest" and NOTED[documented],
        seen = 0,
      }
    canonical[documented], fields[key] = field, field
  end
  FIELDS[name].fields = fields
end

-- ------------------------------------------------------------------------------------------------------------ objects

-- Collects the members for the object's text. The text replaces the first of them; the others are removed with their commas.
-- `before` is the end of the previous member.
local function move(extra, member, before, first, last)
  if extra then
    replace(before + 1, last, "")
    extra[#extra + 1] = member
    return extra
  end
  replace(first, last, "")
  return { member, slot = count }
end

-- Returns the text of the members of an `extra_body`, empty if there are none.
local function members(first, last)
  return find(text, "^[ \t\r\n]*}", first + 1) and "" or sub(text, first + 1, last - 1)
end

local function finish(kind, extra, id)
  local texts = {}
  for _, member in ipairs(extra) do
    texts[#texts + 1] = member ~= "" and member or nil
  end
  local carrier = kind.fields[kind.extra]
  if carrier and carrier.seen == id then
    if #extra == 1 and extra.original then
      pieces[extra.slot] = extra.original
      return
    end
    add_fault("is given beside other parameters of the backend; put them all into one place", "value_error", kind.extra)
    notes.is_unusable = true
  end
  pieces[extra.slot] = ('"%s":%s'):format(kind.extra, json.text("{" .. concat(texts, ",") .. "}"))
end

-- Reads the field whose key begins at `first`. Returns the end of its value, and the text to move, if any. If a request has
-- both an object and its text, the object stays: the service uses the text.
local function read_field(kind, field, at, character, first, id)
  path[depth] = field.name
  local last, is_changed = field.read(at, character, field)
  if field.noted and character ~= NULL then
    notes[field.name] = sub(text, at, last)
  end
  if not field.text or character ~= OPENING_BRACE then
    return last, is_changed and kind.extra and sub(text, first, last)
  elseif field.text == kind.extra then
    return last, members(at, last), sub(text, first, last)
  end
  local twin, original = kind.fields[field.text], sub(text, first, last)
  if twin.seen ~= id then
    replace(first, last, ('"%s":%s'):format(field.text, json.text(sub(text, at, last))))
    twin.replaced, twin.place, twin.original = id, count, original
  end
  return last
end

-- Reads the object that begins at `at`, and returns its end.
function read_object(at, kind)
  objects = objects + 1
  local id, extra, character = objects, nil, nil
  local before, fields = at, kind.fields
  at, character = skip_space(text, at + 1)
  depth = depth + 1
  while character ~= CLOSING_BRACE do
    local first = at
    local last
    last, at, character = key_end(text, at, character)
    local field = fields[json.key(text, first, last)]
    local moved, original
    if field then
      if field.seen == id then
        path[depth] = field.name
        add_fault("is given twice")
        notes.is_unusable = true
      elseif field.replaced == id then
        pieces[field.place] = field.original
      end
      field.seen = id
      last, moved, original = read_field(kind, field, at, character, first, id)
    else
      last = value_end(text, at, character)
      moved = kind.extra and sub(text, first, last)
    end
    if moved then
      extra = move(extra, moved, before, first, last)
      extra.original = original
    end
    if half_pair and half_pair < last then
      path[depth] = field and field.name or sub(text, first + 1, find(text, '"', first + 1, true) - 1)
      add_fault("has half of a surrogate pair, which is no character: " .. sub(text, half_pair, half_pair + 5))
      half_pair, notes.is_unusable = nil, true
    end
    before = last
    at, character = next_item(last, CLOSING_BRACE)
  end
  depth = depth - 1
  if extra then
    finish(kind, extra, id)
  end
  return at
end

local BOM = "\239\187\191"

-- Whether the content is UTF-16 or UTF-32: it begins with a byte order mark, or has null bytes in JSON's ASCII characters.
local function is_wide(content)
  return find(content, "^[^%z]?[^%z]?[^%z]?%z") ~= nil or find(content, "^\255\254") ~= nil or find(content, "^\254\255") ~= nil
end

local function read_body(kind)
  if is_wide(text) then
    error(json.NOT_UTF8, 0)
  end
  json.check_escapes(text)
  local at, first = skip_space(text, 1)
  if first == nil then
    return
  end
  local last = first == OPENING_BRACE and read_object(at, kind) or value_end(text, at, first)
  if skip_space(text, last + 1) <= #text then
    error(json.MALFORMED, 0)
  end
  return first ~= OPENING_BRACE and json.NO_OBJECT or nil
end

-- Reads a body of the type; a byte order mark is ignored (RFC 8259, 8.1). Returns a table:
--   failure       a constant of json.lua, nil if the body can be parsed
--   faults        the faults, {path, rule, kind} each
--   is_unusable   whether the transcoder cannot read the rest of the body
--   json          the rewritten body, nil if it is unchanged
--   stream        the value of `stream`, nil if absent or null
--   temperature   the text of `temperature`, nil if absent or null
--   no_messages   whether `messages` is absent
function body.read(content, kind)
  local has_mark = sub(content, 1, 3) == BOM
  text, pieces, count, done, depth, faults, notes = has_mark and sub(content, 4) or content, {}, 0, 0, 0, {}, {}
  half_pair = json.half_pair(text)
  local root, messages = objects + 1, FIELDS[kind].fields.messages
  local could, failure = pcall(read_body, FIELDS[kind])
  local result = { failure = failure, faults = faults, temperature = notes.temperature, is_unusable = notes.is_unusable }
  result.no_messages = messages and messages.seen ~= root
  if notes.stream then
    result.stream = notes.stream == "true"
  end
  if could and (done > 0 or has_mark) then
    pieces[count + 1] = sub(text, done + 1)
    result.json = concat(pieces)
  end
  text, pieces = nil, nil
  return result
end

return body
