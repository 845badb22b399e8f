-- Limits what a body becomes in memory: a short value of JSON needs up to 36 bytes in the transcoder, eighteen times its text.

local byte, find = string.byte, string.find
local QUOTE, BACKSLASH, COMMA, OPENING_BRACE, OPENING_BRACKET = ('"\\,{['):byte(1, 5)

local expansion = {}

-- A body up to this size is not counted.
local UNCOUNTED = 64 * 1024
-- Any body may have this many values, and a value for each so many bytes.
local VALUES, BYTES = 131072, 16

-- Returns the end of the string that begins at `at`.
local function string_end(text, at)
  repeat
    at = find(text, '"', at + 1, true) or #text
    local before = at - 1
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
  until (at - before) % 2 == 1 or at == #text
  return at
end

-- Whether the text has more than `limit` values: its commas and opening brackets outside of strings.
local function has_more(text, limit)
  local at, count, size = 1, 1, #text
  while at <= size and count <= limit do
    local character = byte(text, at)
    if character == QUOTE then
      at = string_end(text, at)
    elseif character == COMMA or character == OPENING_BRACE or character == OPENING_BRACKET then
      count = count + 1
    end
    at = at + 1
  end
  return count > limit
end

-- Returns the error message for a body that has too many values, or nil.
function expansion.excess(text)
  local limit = VALUES + math.floor(#text / BYTES)
  if #text > UNCOUNTED and has_more(text, limit) then
    return ("The request body has more than %d JSON values, the limit for its size; send fewer, or as text"):format(limit)
  end
end

return expansion
