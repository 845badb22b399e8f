-- A scanner of JSON text (RFC 8259): finds the ends of tokens and validates them. Text that is not JSON raises
-- `json.MALFORMED`; text nested deeper than the transcoder supports raises `json.TOO_DEEP`.
--
-- LuaJIT compiles loops over bytes and searches for plain text, but not patterns.

local byte, char, find, gsub, match, sub = string.byte, string.char, string.find, string.gsub, string.match, string.sub
local concat, floor = table.concat, math.floor
local QUOTE, BACKSLASH, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"\\{[}]'):byte(1, 6)
local COMMA, COLON, MINUS, POINT, ZERO, NINE = (",:-.09"):byte(1, 6)
local MAX_DEPTH = 100
-- A double represents any number of up to this many characters.
local EXACT_DIGITS = 15
-- The levels of JSON that always fit in a google.protobuf.Value: each takes three of protobuf's 100.
local DEEPEST_VALUE = 24

-- For each level of nesting, the number of the last object that had a key. The numbers count over all values of a body.
local seen, objects = {}, 0
local twice -- the first key that an object has twice, or nil

local json = {
  MALFORMED = "malformed",
  TOO_DEEP = "too deep",
  NO_OBJECT = "no object",
  NOT_UTF8 = "not UTF-8",
}

local function malformed()
  error(json.MALFORMED, 0)
end

-- Returns the first position from `at` that is not white space, and the byte there.
local function skip_space(text, at)
  local character = byte(text, at)
  while character == 32 or character == 10 or character == 13 or character == 9 do
    at = at + 1
    character = byte(text, at)
  end
  return at, character
end

-- Returns the end of the string that begins at `at`: the next quote after an even number of backslashes.
local function string_end(text, at)
  while true do
    at = find(text, '"', at + 1, true) or malformed()
    local before = at - 1
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
    if (at - before) % 2 == 1 then
      return at
    end
  end
end

local function is_number(token)
  local whole, rest = match(token, "^-?(%d+)(.*)$")
  if not whole or byte(whole) == ZERO and #whole > 1 then
    return false
  end
  return rest == "" or find(gsub(rest, "^%.%d+", ""), "^[eE][+-]?%d+$") ~= nil or find(rest, "^%.%d+$") ~= nil
end

-- Returns the last of the digits that begin at `at`, `at - 1` if there are none. LuaJIT compiles this, unlike a pattern.
local function digits_end(text, at)
  local character = byte(text, at)
  while character and character >= ZERO and character <= NINE do
    at = at + 1
    character = byte(text, at)
  end
  return at - 1, character
end

-- Returns the end of the number that begins at `at`.
local function number_end(text, at)
  if byte(text, at) ~= ZERO then
    local last, following = digits_end(text, at)
    if last >= at and (following == COMMA or following == CLOSING_BRACKET or following == CLOSING_BRACE) then
      return last
    end
  end
  local last = (find(text, "[^%d.eE+-]", at) or #text + 1) - 1
  if not is_number(sub(text, at, last)) then
    malformed()
  end
  return last
end

local LITERALS = { [byte("t")] = "true", [byte("f")] = "false", [byte("n")] = "null" }

local function is_digit_or_minus(character)
  return character == MINUS or character >= ZERO and character <= NINE
end

-- Returns the end of the scalar that begins with this character at `at`.
local function scalar_end(text, at, character)
  if character == QUOTE then
    return string_end(text, at)
  elseif character and is_digit_or_minus(character) then
    return number_end(text, at)
  end
  local word = LITERALS[character] or malformed()
  local last = at + #word - 1
  if sub(text, at, last) ~= word then
    malformed()
  end
  return last
end

-- Returns the end of the key that begins at `at`, and the position of its value with the byte there.
local function key_end(text, at, character)
  if character ~= QUOTE then
    malformed()
  end
  local last = string_end(text, at)
  local colon, found = skip_space(text, last + 1)
  if found ~= COLON then
    malformed()
  end
  return last, skip_space(text, colon + 1)
end

-- Returns the UTF-8 of a code point.
local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local UNESCAPED = {}
for escape, character in pairs({ b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["/"] = "/", ["\\"] = "\\" }) do
  UNESCAPED[byte(escape)] = character
end

local HEX = {}
for value = 0, 15 do
  local digit = ("%x"):format(value)
  HEX[byte(digit)], HEX[byte(digit:upper())] = value, value
end

-- Returns the number of four digits, nil if they are none. LuaJIT compiles this, unlike tonumber.
local function hexadecimal(first, second, third, fourth)
  first, second, third, fourth = HEX[first], HEX[second], HEX[third], HEX[fourth]
  return first and second and third and fourth and ((first * 16 + second) * 16 + third) * 16 + fourth
end

-- Returns the character of the escape `\u` at `at`, and the end of the escape: two of them are a pair of surrogates. Digits that
-- are none stay as they are.
local function unicode(text, at)
  local code = hexadecimal(byte(text, at + 2, at + 5))
  if code == nil then
    return "\\u", at + 1
  elseif code < 0xD800 or code > 0xDBFF then
    return utf8(code), at + 5
  end
  local low = match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6)
  if not low then
    return utf8(code), at + 5
  end
  return utf8(0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00), at + 11
end

-- Returns the decoded string between the quotes: equal keys may be written in different ways.
local function key_of(text, first, last)
  local key = sub(text, first + 1, last - 1)
  local at = find(key, "\\", 1, true)
  if not at then
    return key
  end
  local parts, count, done = {}, 0, 0
  while at do
    parts[count + 1] = sub(key, done + 1, at - 1)
    local character = UNESCAPED[byte(key, at + 1)]
    if character then
      done = at + 1
    else
      character, done = unicode(key, at)
    end
    parts[count + 2] = character
    count = count + 2
    at = find(key, "\\", done + 1, true)
  end
  parts[count + 1] = sub(key, done + 1)
  return concat(parts)
end

-- Whether a number is not exact as a double, or would be formatted differently: many digits, an exponent, a trailing zero
-- after the point, or -0.
local function is_inexact(text, at, last, character)
  if not is_digit_or_minus(character) then
    return false
  elseif last - at >= EXACT_DIGITS then
    return true
  end
  if last - at < EXACT_DIGITS and digits_end(text, at) == last then
    return false
  end
  local token = sub(text, at, last)
  local point = find(token, "[.eE]")
  if not point then
    return token == "-0"
  end
  return byte(token, point) ~= POINT or find(token, "[eE]") ~= nil or byte(token, -1) == ZERO or find(token, "^-?0%.0000") ~= nil
end

-- Returns the end of the value that begins with this character at `at`, and whether doubles or unordered maps would change
-- it. `usual` is the set of keys whose order has no meaning; without it, the order of no key has.
local function value_end(text, at, character, usual)
  if character ~= OPENING_BRACE and character ~= OPENING_BRACKET then
    local last = scalar_end(text, at, character)
    return last, is_inexact(text, at, last, character)
  end
  local closing, ids, depth, inexact = {}, {}, 0, false
  while true do
    local opened = false
    if character == OPENING_BRACE or character == OPENING_BRACKET then
      if depth == MAX_DEPTH then
        error(json.TOO_DEEP, 0)
      end
      depth = depth + 1
      closing[depth] = character + 2
      objects = objects + 1
      ids[depth] = objects
      inexact = inexact or usual ~= nil and depth > DEEPEST_VALUE
      at, character = skip_space(text, at + 1)
      opened = character ~= closing[depth]
    else
      local first = at
      at = scalar_end(text, at, character)
      inexact = is_inexact(text, first, at, character) or inexact
      at, character = skip_space(text, at + 1)
    end
    while not opened and character == closing[depth] do
      depth = depth - 1
      if depth == 0 then
        return at, inexact
      end
      at, character = skip_space(text, at + 1)
    end
    if not opened then
      if character ~= COMMA then
        malformed()
      end
      at, character = skip_space(text, at + 1)
    end
    if closing[depth] == CLOSING_BRACE then
      local first, last = at, nil
      last, at, character = key_end(text, at, character)
      local key, keys = key_of(text, first, last), seen[depth]
      if keys == nil then
        keys = {}
        seen[depth] = keys
      end
      if keys[key] == ids[depth] then
        twice = twice or key
      end
      keys[key] = ids[depth]
      if usual and not inexact then
        inexact = not usual[key]
      end
    end
  end
end

-- Moves from the end of an item to the next item or to the closing bracket; returns the position and the byte there.
function json.next_item(text, last, closing)
  local at, character = skip_space(text, last + 1)
  if character ~= COMMA then
    return at, character == closing and closing or malformed()
  end
  at, character = skip_space(text, at + 1)
  if character == closing then
    malformed()
  end
  return at, character
end

-- Returns the position of the first escape that is an unpaired surrogate, which is not a character; nil if there is none.
function json.half_pair(text)
  if not (find(text, "\\ud", 1, true) or find(text, "\\uD", 1, true)) then
    return nil
  end
  local at = find(text, "\\", 1, true)
  while at do
    local is_half, width = find(text, "^\\u[dD][89a-fA-F]", at) ~= nil, 2
    if is_half then
      if not find(text, "^\\u[dD][89abAB]%x%x\\u[dD][c-fC-F]%x%x", at) then
        return at
      end
      width = 12
    end
    at = find(text, "\\", at + width, true)
  end
end

-- The scanner above does not validate strings. Raises json.MALFORMED for control characters and for invalid escapes.
local function check_strings(text)
  local has_control = find(text, "[%z\1-\31]")
  if not has_control and not find(text, "\\", 1, true) then
    return
  end
  local at = find(text, '"', 1, true)
  while at do
    local last = string_end(text, at)
    local rest = sub(text, at + 1, last - 1)
    if has_control and find(rest, "[%z\1-\31]") then
      malformed()
    end
    if find(rest, "\\", 1, true) then
      rest = gsub(rest, '\\["\\/bfnrt]', " ")
      if find(gsub(rest, "\\u%x%x%x%x", " "), "\\", 1, true) then
        malformed()
      end
    end
    at = find(text, '"', last + 1, true)
  end
end

local ESCAPED, LETTER_U = {}, byte("u")
for _, character in ipairs({ byte('"\\/bfnrtu', 1, -1) }) do
  ESCAPED[character] = true
end

-- Raises json.MALFORMED for an invalid escape: the transcoder would drop its backslash, and encoding.lua would keep it.
function json.check_escapes(text)
  local at = find(text, "\\", 1, true)
  while at do
    local escaped = byte(text, at + 1)
    if not ESCAPED[escaped] or escaped == LETTER_U and not hexadecimal(byte(text, at + 2, at + 5)) then
      malformed()
    end
    at = find(text, "\\", at + 2, true)
  end
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Returns a JSON string that contains the JSON text. Raises json.MALFORMED for text with invalid strings.
function json.text(text)
  check_strings(text)
  return '"' .. gsub(text, '["\\\n\r\t]', ESCAPES) .. '"'
end

-- Begins another body.
function json.begin()
  seen, objects, twice = {}, 0, nil
end

-- Returns the first key that an object in the last values had twice, or nil.
function json.take_twice()
  local key = twice
  twice = nil
  return key
end

-- Returns the keys of the object that was read last, as a set.
function json.take_keys()
  local keys = seen[1] or {}
  seen[1] = nil
  return keys
end

json.key = key_of
json.skip_space, json.key_end, json.value_end, json.scalar_end = skip_space, key_end, value_end, scalar_end

return json
