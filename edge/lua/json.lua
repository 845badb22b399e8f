-- JSON text by position: where a token ends, and whether it is JSON at all (RFC 8259). Everything that is no JSON raises
-- `json.MALFORMED`, everything nested deeper than the transcoder reads raises `json.TOO_DEEP`.
--
-- Loops over bytes and searches for plain text are fast here, since LuaJIT compiles them; patterns it does not.

local byte, find, gsub, match, sub = string.byte, string.find, string.gsub, string.match, string.sub
local QUOTE, BACKSLASH, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"\\{[}]'):byte(1, 6)
local COMMA, COLON, MINUS, POINT, ZERO, NINE = (",:-.09"):byte(1, 6)
local MAX_DEPTH = 100
-- A number of so many characters is the same as a double.
local EXACT_DIGITS = 15
-- Levels of JSON that a google.protobuf.Value surely holds: each takes three of protobuf's 100.
local DEEPEST_VALUE = 24

local json = {
  MALFORMED = "malformed",
  TOO_DEEP = "too deep",
  NO_OBJECT = "no object",
  NOT_UTF8 = "not UTF-8",
}

local function malformed()
  error(json.MALFORMED, 0)
end

-- The first position from `at` that is no white space, and the byte there.
local function skip_space(text, at)
  local character = byte(text, at)
  while character == 32 or character == 10 or character == 13 or character == 9 do
    at = at + 1
    character = byte(text, at)
  end
  return at, character
end

-- Where the string ends whose first quote is at `at`: at the next quote that has no odd number of backslashes before it.
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

-- Where the digits end that begin at `at`; before it where there are none. Runs as machine code, unlike a pattern.
local function digits_end(text, at)
  local character = byte(text, at)
  while character and character >= ZERO and character <= NINE do
    at = at + 1
    character = byte(text, at)
  end
  return at - 1, character
end

-- Where the number ends that begins at `at`.
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

-- Where the value ends that begins with this character at `at` and is no object and no array.
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

-- Where the key ends that begins at `at`, and where its value begins, with the byte there.
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

-- Whether this is a number that a double does not stand for, or that is written in another way than a double would be:
-- with many digits, an exponent, a last zero behind the point, or as -0.
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

-- Where the value ends that begins with this character at `at`; and whether a double, or a map whose keys have no order,
-- does not keep it as it is. `usual` has the keys whose order says nothing; without it all have.
local function value_end(text, at, character, usual)
  if character ~= OPENING_BRACE and character ~= OPENING_BRACKET then
    local last = scalar_end(text, at, character)
    return last, is_inexact(text, at, last, character)
  end
  local closing, depth, inexact = {}, 0, false
  while true do
    local opened = false
    if character == OPENING_BRACE or character == OPENING_BRACKET then
      if depth == MAX_DEPTH then
        error(json.TOO_DEEP, 0)
      end
      depth = depth + 1
      closing[depth] = character + 2
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
      if usual and not inexact then
        inexact = not usual[sub(text, first + 1, last - 1)]
      end
    end
  end
end

-- Where the first escape is that stands for half of a surrogate pair, which is no character; nil if there is none.
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

-- Strings are taken as they are above. Raises json.MALFORMED for control characters and for escapes that JSON does not have.
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

local ESCAPED = {}
for _, character in ipairs({ byte('"\\/bfnrtu', 1, -1) }) do
  ESCAPED[character] = true
end

-- Raises json.MALFORMED for a backslash before a character that JSON does not escape: the transcoder would drop it.
function json.check_escapes(text)
  local at = find(text, "\\", 1, true)
  while at do
    if not ESCAPED[byte(text, at + 1)] then
      malformed()
    end
    at = find(text, "\\", at + 2, true)
  end
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- A JSON string that holds the JSON text. Raises json.MALFORMED for a text whose strings are none.
function json.text(text)
  check_strings(text)
  return '"' .. gsub(text, '["\\\n\r\t]', ESCAPES) .. '"'
end

-- A key as it is meant. Those that anybody knows are all ASCII, which JSON may also write as \u00XX.
function json.key(text, first, last)
  local key = sub(text, first + 1, last - 1)
  if find(key, "\\", 1, true) then
    key = gsub(key, "\\u00(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)
  end
  return key
end

json.skip_space, json.key_end, json.value_end, json.scalar_end = skip_space, key_end, value_end, scalar_end

return json
