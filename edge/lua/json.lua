-- JSON text by position: where a token ends, and whether it is JSON at all (RFC 8259). Everything that is no JSON raises
-- `json.MALFORMED`, everything nested deeper than the transcoder reads raises `json.TOO_DEEP`.
--
-- Loops over bytes and searches for plain text are fast here, since LuaJIT compiles them; patterns it does not.

local byte, find, gsub, match, sub = string.byte, string.find, string.gsub, string.match, string.sub
local QUOTE, BACKSLASH, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"\\{[}]'):byte(1, 6)
local COMMA, COLON, MINUS, ZERO, NINE = (",:-09"):byte(1, 5)
local DEEPEST = 100
-- A number of so many characters is the same as a double, unless it is smaller than this.
local SURE_DIGITS, LEAST_SURE = 15, 1e-300

local json = {
  MALFORMED = "malformed",
  TOO_DEEP = "too deep",
  OUT_OF_RANGE = "out of range",
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

-- Where the number ends that begins at `at`.
local function number_end(text, at)
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

-- Whether this is a number that may not be the same as a double. What no double comes near, no JSON reader behind us takes.
local function is_long(text, at, last, character)
  if not is_digit_or_minus(character) then
    return false
  end
  local token = sub(text, at, last)
  if not find(token, "[eE]") and #token <= SURE_DIGITS then
    return false
  end
  local size = math.abs(tonumber(token))
  if size == math.huge then
    error(json.OUT_OF_RANGE, 0)
  end
  return #token > SURE_DIGITS or size < LEAST_SURE
end

-- Where the value ends that begins with this character at `at`; and whether a number in it may not be the same as a double.
local function value_end(text, at, character)
  if character ~= OPENING_BRACE and character ~= OPENING_BRACKET then
    local last = scalar_end(text, at, character)
    return last, is_long(text, at, last, character)
  end
  local closing, depth, long = {}, 0, false
  while true do
    local opened = false
    if character == OPENING_BRACE or character == OPENING_BRACKET then
      if depth == DEEPEST then
        error(json.TOO_DEEP, 0)
      end
      depth = depth + 1
      closing[depth] = character + 2
      at, character = skip_space(text, at + 1)
      opened = character ~= closing[depth]
    else
      local first = at
      at = scalar_end(text, at, character)
      long = is_long(text, first, at, character) or long
      at, character = skip_space(text, at + 1)
    end
    while not opened and character == closing[depth] do
      depth = depth - 1
      if depth == 0 then
        return at, long
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
      local _
      _, at, character = key_end(text, at, character)
    end
  end
end

-- Strings are taken as they are above. Raises json.MALFORMED for control characters and for escapes that JSON does not have,
-- halves of surrogate pairs among them.
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
      rest = gsub(gsub(rest, '\\["\\/bfnrt]', " "), "\\u[dD][89abAB]%x%x\\u[dD][c-fC-F]%x%x", " ")
      if find(rest, "\\u[dD][89a-fA-F]") or find(gsub(rest, "\\u%x%x%x%x", " "), "\\", 1, true) then
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
