-- Writes a request as protobuf. Its JSON is what body.lua leaves of a body: valid, with known fields only, each of the type of
-- its field.

local ffi = require("ffi")
local json = require("json")
local TYPES = require("fields")

local byte, char, concat, floor, sub = string.byte, string.char, table.concat, math.floor, string.sub
local skip_space, next_item, key_end, scalar_end = json.skip_space, json.next_item, json.key_end, json.scalar_end
local key_of = json.key
local QUOTE, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"{[}]'):byte(1, 5)
local TRUE, FALSE, NULL, MINUS = ("tfn-"):byte(1, 4)
local VARINT, FIXED, LENGTH = 0, 1, 2 -- wire types

local bits = ffi.new("union { double number; uint8_t bytes[8]; }")

local function double(value)
  bits.number = value
  return ffi.string(bits.bytes, 8)
end

local SHORT = {}
for value = 0, 127 do
  SHORT[value] = char(value)
end

local function varint(value)
  if value < 128 then
    return SHORT[value]
  elseif value < 16384 then
    return char(value % 128 + 128, floor(value / 128))
  end
  local out = ""
  while value >= 128 do
    out = out .. char(value % 128 + 128)
    value = floor(value / 128)
  end
  return out .. SHORT[value]
end

-- Returns the varint of a whole number of 64 bits, from its text.
local function varint64(text)
  local value = 0ULL
  for at = byte(text) == MINUS and 2 or 1, #text do
    value = value * 10ULL + (byte(text, at) - 48)
  end
  if byte(text) == MINUS then
    value = -value
  end
  local out = ""
  while value >= 128ULL do
    out = out .. char(tonumber(value % 128ULL) + 128)
    value = value / 128ULL
  end
  return out .. char(tonumber(value))
end

local function sized(bytes)
  return varint(#bytes) .. bytes
end

local write_value

local function write_struct(text, at)
  local parts, count, character, first, last = {}, 0, nil, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACE do
    first = at
    last, at, character = key_end(text, at, character)
    local key, value = key_of(text, first, last), nil
    value, last = write_value(text, at, character)
    local entry = "\10" .. varint(#key) .. key .. "\18" .. varint(#value) .. value
    parts[count + 1] = "\10" .. varint(#entry) .. entry
    count = count + 1
    at, character = next_item(text, last, CLOSING_BRACE)
  end
  return concat(parts), at
end

-- Returns the items of an array, each with this tag, and the end of the array.
local function write_items(text, at, tag, write)
  local parts, count, character, item, last = {}, 0, nil, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACKET do
    item, last = write(text, at, character)
    parts[count + 1] = tag .. varint(#item) .. item
    count = count + 1
    at, character = next_item(text, last, CLOSING_BRACKET)
  end
  return concat(parts), at
end

-- Returns a google.protobuf.Value, and the end of the value that begins with this character at `at`.
function write_value(text, at, character)
  if character == OPENING_BRACE then
    local fields, last = write_struct(text, at)
    return "\42" .. sized(fields), last
  elseif character == OPENING_BRACKET then
    local items, last = write_items(text, at, "\10", write_value)
    return "\50" .. sized(items), last
  end
  local last = scalar_end(text, at, character)
  if character == QUOTE then
    return "\26" .. sized(key_of(text, at, last)), last
  elseif character == TRUE or character == FALSE then
    return character == TRUE and "\32\1" or "\32\0", last
  elseif character == NULL then
    return "\8\0", last
  end
  return "\17" .. double(tonumber(sub(text, at, last))), last
end

-- Returns the text of a number, which may be a string. Outside of strings, -0 is a whole number to the transcoder.
local function digits(text, at, last, character)
  if character == QUOTE then
    return sub(text, at + 1, last - 1)
  end
  local token = sub(text, at, last)
  return token == "-0" and "0" or token
end

local write_message

local function write_map(text, at, tag, write)
  local parts, count, character, first, last, value = {}, 0, nil, nil, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACE do
    first = at
    last, at, character = key_end(text, at, character)
    local key = key_of(text, first, last)
    last = scalar_end(text, at, character)
    value = write(text, at, last, character)
    local entry = "\10" .. varint(#key) .. key .. value
    parts[count + 1] = tag .. varint(#entry) .. entry
    count = count + 1
    at, character = next_item(text, last, CLOSING_BRACE)
  end
  return concat(parts), at
end

local function string_item(text, at, character)
  local last = scalar_end(text, at, character)
  return key_of(text, at, last), last
end

-- The writers of fields by the kind of their value.
local WRITERS = {
  string = function(text, at, character, field)
    local last = scalar_end(text, at, character)
    return field.tag .. sized(key_of(text, at, last)), last
  end,
  strings = function(text, at, _, field)
    return write_items(text, at, field.tag, string_item)
  end,
  bool = function(text, at, character, field)
    return field.tag .. SHORT[character == TRUE and 1 or 0], scalar_end(text, at, character)
  end,
  double = function(text, at, character, field)
    local last = scalar_end(text, at, character)
    return field.tag .. double(tonumber(digits(text, at, last, character))), last
  end,
  uint32 = function(text, at, character, field)
    local last = scalar_end(text, at, character)
    return field.tag .. varint(tonumber(digits(text, at, last, character))), last
  end,
  int64 = function(text, at, character, field)
    local last = scalar_end(text, at, character)
    local token = digits(text, at, last, character)
    if token:find("[^%d-]") then
      token = ("%.0f"):format(tonumber(token))
    end
    return field.tag .. varint64(token), last
  end,
  value = function(text, at, character, field)
    local value, last = write_value(text, at, character)
    return field.tag .. sized(value), last
  end,
  struct = function(text, at, _, field)
    local fields, last = write_struct(text, at)
    return field.tag .. sized(fields), last
  end,
  structs = function(text, at, _, field)
    return write_items(text, at, field.tag, write_struct)
  end,
  object = function(text, at, _, field)
    local fields, last = write_message(text, at, field.of)
    return field.tag .. sized(fields), last
  end,
  objects = function(text, at, _, field)
    return write_items(text, at, field.tag, field.write)
  end,
  string_map = function(text, at, _, field)
    return write_map(text, at, field.tag, function(all, first, last)
      return "\18" .. sized(key_of(all, first, last))
    end)
  end,
  double_map = function(text, at, _, field)
    return write_map(text, at, field.tag, function(all, first, last, character)
      return "\17" .. double(tonumber(digits(all, first, last, character)))
    end)
  end,
}

local WIRE = { bool = VARINT, uint32 = VARINT, int64 = VARINT, double = FIXED }

-- Returns the fields of the object that begins at `at`, and its end.
function write_message(text, at, fields)
  local parts, count, character, first, last = {}, 0, nil, nil, nil
  at, character = skip_space(text, at + 1)
  while character ~= CLOSING_BRACE do
    first = at
    last, at, character = key_end(text, at, character)
    local field = fields[key_of(text, first, last)]
    if character == NULL and field.kind ~= "value" then
      last = at + 3
    else
      parts[count + 1], last = field.writer(text, at, character, field)
      count = count + 1
    end
    at, character = next_item(text, last, CLOSING_BRACE)
  end
  return concat(parts), at
end

-- Returns a field for the writers.
local function field_of(kind, number, of)
  return {
    kind = kind,
    tag = varint(number * 8 + (WIRE[kind] or LENGTH)),
    of = of,
    writer = WRITERS[kind],
    write = function(text, at)
      return write_message(text, at, of)
    end,
  }
end

local FIELDS = {} -- the fields of each type by name
for name in pairs(TYPES) do
  FIELDS[name] = {}
end
for name, row in pairs(TYPES) do
  for key, described in pairs(row.fields) do
    FIELDS[name][key] = field_of(described[1], described[2], FIELDS[described.of])
  end
  if row.extra then
    FIELDS[name][row.extra] = field_of("string", row.extra_number)
  end
end

local encoding = {}

-- Returns a request of the type as protobuf.
function encoding.write(text, kind)
  local at, first = skip_space(text, 1)
  return first and (write_message(text, at, FIELDS[kind])) or ""
end

return encoding
