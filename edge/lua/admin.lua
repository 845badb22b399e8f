-- The script of JSON on the admin listener. The transcoder ignores unknown members, where a misspelt `scopes` would make a key
-- with all of them: this refuses them, with the nearest name.

package.path = "lua/?.lua"

local fields = require("admin_fields")
local json = require("json")
local text = require("text")

local key_end, next_item, skip_space, value_end = json.key_end, json.next_item, json.skip_space, json.value_end
local OPENING_BRACE, OPENING_BRACKET, CLOSING_BRACE, CLOSING_BRACKET = ("{[}]"):byte(1, 4)
local MAX_NAME = 64 -- the longest part of a name that is copied into a message, in bytes
local MAX_COMPARED = 32 -- the longest name that is compared with others

local function refuse(path, rule)
  error({ path = path, rule = rule }, 0)
end

-- Returns the number of characters that are added, removed or replaced between two names (Levenshtein).
local function distance(one, other)
  local row = {}
  for place = 0, #other do
    row[place] = place
  end
  for at = 1, #one do
    local diagonal
    diagonal, row[0] = row[0], at
    for place = 1, #other do
      local replaced = diagonal + (one:byte(at) == other:byte(place) and 0 or 1)
      diagonal, row[place] = row[place], math.min(replaced, row[place] + 1, row[place - 1] + 1)
    end
  end
  return row[#other]
end

local function simple(name)
  return (name:lower():gsub("%W", ""))
end

-- Returns a hint with the nearest name, or with all names if none is near.
local function suggestion(name, known)
  local names, nearest, least = {}, nil, nil
  for other in pairs(known) do
    names[#names + 1] = other
  end
  table.sort(names)
  for _, other in ipairs(#name <= MAX_COMPARED and names or {}) do
    local found = distance(simple(name), simple(other))
    if found <= #other / 3 and (least == nil or found < least) then
      nearest, least = other, found
    end
  end
  if #names == 0 then
    return "the request has no fields"
  end
  return nearest and ('did you mean "%s"?'):format(nearest) or "use one of: " .. table.concat(names, ", ")
end

-- Returns the path of a member.
local function join(path, name)
  local shown = #name > MAX_NAME and name:sub(1, MAX_NAME) .. "…" or name
  return path and path .. "." .. shown or shown
end

local read_object

-- Reads the value of a field whose type is an object: an object, or several in an array. The transcoder refuses others.
local function read_value(content, at, first, kind, path)
  if kind and first == OPENING_BRACE then
    return read_object(content, at, kind, path)
  elseif not kind or first ~= OPENING_BRACKET then
    return value_end(content, at, first)
  end
  local count = 0
  at, first = skip_space(content, at + 1)
  while first ~= CLOSING_BRACKET do
    local is_object = first == OPENING_BRACE
    local last = is_object and read_object(content, at, kind, ("%s[%d]"):format(path, count)) or value_end(content, at, first)
    count = count + 1
    at, first = next_item(content, last, CLOSING_BRACKET)
  end
  return at
end

-- Reads the object that begins at `at`, and returns its end.
function read_object(content, at, kind, path)
  local known, seen, first = fields.types[kind], {}, nil
  at, first = skip_space(content, at + 1)
  while first ~= CLOSING_BRACE do
    local begin, last = at, nil
    last, at, first = key_end(content, at, first)
    local name = json.key(content, begin, last)
    local member = join(path, name)
    if known[name] == nil then
      refuse(member, "is unknown; " .. suggestion(name, known))
    elseif seen[name] then
      refuse(member, "is given twice")
    end
    seen[name] = true
    at, first = next_item(content, read_value(content, at, first, known[name], member), CLOSING_BRACE)
  end
  return at
end

-- Checks a body, which may be empty. Raises a constant of json.lua, or the path of a member and the rule.
local function check(content, kind)
  json.begin()
  local at, first = skip_space(content, 1)
  if first == nil then
    return
  elseif first ~= OPENING_BRACE then
    error(json.NO_OBJECT, 0)
  end
  if skip_space(content, read_object(content, at, kind) + 1) <= #content then
    error(json.MALFORMED, 0)
  end
end

-- Answers with a google.rpc.Status.
local function respond(handle, status, code, message, details)
  handle:respond({ [":status"] = status }, ('{"code":%d,"message":%s,"details":[%s]}'):format(code, text.quote(message), details))
end

local INFO = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"INVALID_REQUEST","domain":"parley"}'
local VIOLATION = ',{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":%s,"description":%s}]}'
local MESSAGES = { [json.TOO_DEEP] = "The body is nested too deeply" }

local function respond_invalid(handle, failure)
  if type(failure) ~= "table" then
    return respond(handle, "400", 3, MESSAGES[failure] or "The body must be a JSON object (RFC 8259)", INFO)
  end
  local message = ("`%s` %s"):format(failure.path, failure.rule)
  respond(handle, "400", 3, message, INFO .. VIOLATION:format(text.quote(failure.path), text.quote(message)))
end

function envoy_on_request(handle)
  local path = handle:headers():get(":path"):match("^[^?]*")
  local kind = fields.methods[path]
  if not kind then
    return respond(handle, "404", 5, "Unknown method; the admin API has paths such as /parley.admin.v1.Keys/ListKeys", "")
  end
  local buffer = handle:body()
  local could, failure = pcall(check, buffer and buffer:getBytes(0, buffer:length()) or "", kind)
  if not could then
    respond_invalid(handle, failure)
  end
end
