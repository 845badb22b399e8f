-- Reads the values of known fields. Each reader takes the text, the position of a value, its first byte, its field (see
-- schema.lua) and the depth of its path. It returns the position of the value's end, and whether the transcoder would change
-- the value. A value of a wrong type is a fault and is replaced. Null is equivalent to an absent field, unless the field is
-- required.

local edits = require("edits")
local json = require("json")

local find, sub = string.find, string.sub
local skip_space, next_item, key_end, value_end, scalar_end =
  json.skip_space, json.next_item, json.key_end, json.value_end, json.scalar_end
local fault, replace, path = edits.fault, edits.replace, edits.path
local QUOTE, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"{[}]'):byte(1, 5)
local TRUE, FALSE, NULL, MINUS, ZERO, NINE = ("tfn-09"):byte(1, 6)

-- The keys of content parts, annotations, tool choices, voices and formats of custom tools in OpenAI's API, and those of
-- Anthropic's cache breakpoints: their order has no meaning. Objects with other keys are forwarded as text.
local USUAL = {}
for key in
  ([[type text refusal image_url url detail input_audio data format file filename file_data file_id function name custom id
  allowed_tools mode tools grammar syntax definition url_citation title start_index end_index cache_control ttl]]):gmatch("%S+")
do
  USUAL[key] = true
end
local function field_error(text, at, first, field, depth)
  local last = value_end(text, at, first)
  fault(depth, field.must_be, first == QUOTE and field.parsing or field.sort)
  replace(at, last, field.neutral or "null")
  return last
end

local function read_string(text, at, first, field, depth)
  if first == QUOTE or first == NULL and not field.required then
    return scalar_end(text, at, first)
  end
  return field_error(text, at, first, field, depth)
end

local function read_bool(text, at, first, field, depth)
  if first == TRUE or first == FALSE or first == NULL then
    return scalar_end(text, at, first)
  end
  return field_error(text, at, first, field, depth)
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

-- The form of a number in a string: only of these has each reader, the transcoder's and tonumber, the same value.
local QUOTED = { double = "^-?%d[%d.eE+-]*$", uint32 = "^%d+$", int64 = "^-?%d+$" }

-- Numbers may be strings, as in protobuf's JSON mapping.
local function read_number(text, at, first, field, depth)
  if first == NULL then
    return scalar_end(text, at, first)
  elseif first ~= QUOTE and first ~= MINUS and not (first and first >= ZERO and first <= NINE) then
    return field_error(text, at, first, field, depth)
  end
  local last = scalar_end(text, at, first)
  local token = first == QUOTE and sub(text, at + 1, last - 1) or sub(text, at, last)
  local value = (first ~= QUOTE or find(token, QUOTED[field.number])) and tonumber(token)
  local breach, sort = field.must_be, first == QUOTE and field.parsing or field.sort
  if value then
    breach, sort = BREACHES[field.number](value, token, field)
  end
  if breach then
    fault(depth, breach, sort)
    replace(at, last, "null")
  end
  return last
end

local function read_value(text, at, first)
  return value_end(text, at, first, USUAL)
end

-- Reads the items of an array with `read_item`; any other value is a fault.
local function read_items(text, at, first, field, depth, read_item)
  if first == NULL and not field.required then
    return scalar_end(text, at, first)
  elseif first ~= OPENING_BRACKET then
    return field_error(text, at, first, field, depth)
  end
  local character
  depth = depth + 1
  at, character = skip_space(text, at + 1)
  local place = 0
  while character ~= CLOSING_BRACKET do
    path[depth] = place
    at, character = next_item(text, read_item(text, at, character, field.item, depth), CLOSING_BRACKET)
    place = place + 1
  end
  return at
end

-- An array of objects with any keys. If the transcoder would change one, the whole array is kept as text.
local function read_structs(text, at, first, field, depth)
  local is_changed, is_faulty = false, false
  local last = read_items(text, at, first, field, depth, function(_, start, character, item)
    if character ~= OPENING_BRACE then
      is_faulty = true
      return field_error(text, start, character, item, depth + 1)
    end
    local closing, changes = value_end(text, start, character, USUAL)
    is_changed = is_changed or changes
    return closing
  end)
  return last, is_changed and not is_faulty
end

local function read_struct(text, at, first, field, depth)
  if first ~= OPENING_BRACE and first ~= NULL then
    return field_error(text, at, first, field, depth)
  end
  return value_end(text, at, first, not field.text and USUAL or nil)
end

local function read_string_item(text, at, first, item, depth)
  if first == QUOTE then
    return scalar_end(text, at, first)
  end
  return field_error(text, at, first, item, depth)
end

local function read_strings(text, at, first, field, depth)
  return read_items(text, at, first, field, depth, read_string_item)
end

-- An object with any keys. Only the first value of a wrong type is reported.
local function read_map(text, at, first, field, depth)
  if first == NULL then
    return scalar_end(text, at, first)
  elseif first ~= OPENING_BRACE then
    return field_error(text, at, first, field, depth)
  end
  local start, fits, keys, twice, character, first, last = at, true, {}, nil, nil, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACE do
    first = at
    last, at, character = key_end(text, at, character)
    local key = json.key(text, first, last)
    twice = twice or keys[key] and key
    keys[key] = true
    last = value_end(text, at, character)
    fits = fits and field.fits(text, at, character, last)
    at, character = next_item(text, last, CLOSING_BRACE)
  end
  if twice then
    fault(depth, ("has the key `%s` twice"):format(sub(twice, 1, 64)))
  elseif not fits then
    fault(depth, field.must_be, field.sort)
  end
  if twice or not fits then
    replace(start, at, "null")
  end
  return at
end

local function is_string(_, _, first)
  return first == QUOTE
end

local function is_double(text, at, first, last)
  local token = first == QUOTE and sub(text, at + 1, last - 1) or sub(text, at, last)
  -- The transcoder reads neither white space nor binary numbers.
  local value = not find(token, "%s") and not find(token, "^[+-]?0[bB]") and tonumber(token)
  return value and math.abs(value) < math.huge
end

return {
  error = field_error,
  string = read_string,
  bool = read_bool,
  number = read_number,
  any = read_value,
  struct = read_struct,
  structs = read_structs,
  items = read_items,
  strings = read_strings,
  map = read_map,
  is_string = is_string,
  is_double = is_double,
}
