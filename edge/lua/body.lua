-- Parameters of the backend at the top level of a request's body, which the transcoder would drop.
--
-- The body is known to be JSON without a mistake: json_to_metadata has read it, and edge.lua refuses what it could not read.
-- Loops over bytes and searches for plain text are fast here, since LuaJIT compiles them; patterns it does not.

local FIELDS = require("fields")

local byte, find, sub = string.byte, string.find, string.sub
local QUOTE, BACKSLASH, OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ('"\\{[}]'):byte(1, 6)
local NULL = byte("n")

local body = {}

-- Where the string ends whose first quote is at `at`: at the next quote that has no odd number of backslashes before it.
local function string_end(json, at)
  while true do
    at = find(json, '"', at + 1, true)
    local before = at - 1
    while byte(json, before) == BACKSLASH do
      before = before - 1
    end
    if (at - before) % 2 == 1 then
      return at
    end
  end
end

-- Where the object or array ends that begins at `at`.
local function container_end(json, at)
  local depth = 1
  repeat
    at = at + 1
    local character = byte(json, at)
    if character == QUOTE then
      at = string_end(json, at)
    elseif character == OPENING_BRACE or character == OPENING_BRACKET then
      depth = depth + 1
    elseif character == CLOSING_BRACE or character == CLOSING_BRACKET then
      depth = depth - 1
    elseif character == nil then
      error("the body ends inside an object")
    end
  until depth == 0
  return at
end

local function value_end(json, at)
  local first = byte(json, at)
  if first == QUOTE then
    return string_end(json, at)
  elseif first == OPENING_BRACE or first == OPENING_BRACKET then
    return container_end(json, at)
  end
  return find(json, "[%s,}]", at) - 1
end

-- A known name in other letters stays known: they are all ASCII, which JSON may also write as \u00XX.
local function plain(key)
  if find(key, "\\", 1, true) then
    key = key:gsub("\\u00(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)
  end
  return key
end

-- Whether there is an object in the object that begins at `at`.
local function has_object(json, at)
  repeat
    at = find(json, '["{}]', at + 1)
    local character = byte(json, at)
    if character == QUOTE then
      at = string_end(json, at)
    end
  until character ~= QUOTE
  return byte(json, at) == OPENING_BRACE
end

-- Whether the value that begins at `at` breaks its field's rule in a way that the transcoder does not tell, or tells without
-- a name, or takes for something else: an array, anything else in place of an array, an object in a map.
local function is_misfit(kind, json, at)
  local first = byte(json, at)
  if kind == "an array" then
    return first ~= OPENING_BRACKET and first ~= NULL
  elseif first == OPENING_BRACKET then
    return true
  end
  return first == OPENING_BRACE and find(kind, "values", 1, true) and has_object(json, at)
end

-- Returns nil where all keys are known, else the places of each unknown key's first quote and of its value's end; and the
-- first field that is not what it must be, with what that is.
local function unknown_members(json)
  local places, misfit, must_be
  local at = find(json, "{", 1, true)
  while true do
    local first = find(json, '["}]', at + 1)
    if byte(json, first) ~= QUOTE then
      return places, misfit, must_be
    end
    local key_end = string_end(json, first)
    local key, value = plain(sub(json, first + 1, key_end - 1)), find(json, "[^%s:]", key_end + 1)
    local kind = FIELDS[key]
    at = value_end(json, value)
    if not kind then
      places = places or {}
      places[#places + 1] = { first, at }
    elseif kind ~= true and not misfit and is_misfit(kind, json, value) then
      misfit, must_be = key, kind
    end
  end
end

-- Wraps every `"key": value` that the transcoder would drop, each in an `extra_body` of its own: it merges them, in their
-- order. Returns nil where there is nothing to change; and a field that is not what it must be, with what that is.
function body.with_extra(json)
  if not find(json, "^%s*{") then
    return nil
  end
  local places, misfit, must_be = unknown_members(json)
  if misfit or not places then
    return nil, misfit, must_be
  end
  local pieces, done = {}, 0
  for _, place in ipairs(places) do
    pieces[#pieces + 1] = sub(json, done + 1, place[1] - 1)
    pieces[#pieces + 1] = '"extra_body":{' .. sub(json, place[1], place[2]) .. "}"
    done = place[2]
  end
  pieces[#pieces + 1] = sub(json, done + 1)
  return table.concat(pieces)
end

return body
