-- Reads the objects of known types (see schema.lua), and moves members to the fields for text.

local edits = require("edits")
local json = require("json")
local values = require("values")

local concat, find, sub = table.concat, string.find, string.sub
local skip_space, next_item, key_end, value_end, scalar_end =
  json.skip_space, json.next_item, json.key_end, json.value_end, json.scalar_end
local fault, replace, path = edits.fault, edits.replace, edits.path
local OPENING_BRACE, CLOSING_BRACE, NULL = ("{}n"):byte(1, 3)
local MAX_KEY = 64 -- the longest part of a key that is copied into a message, in bytes

-- What is known of the body: the texts of the noted fields, and `is_unusable`.
local notes
local half_pair -- the position of an unpaired surrogate that is not yet reported, or nil
local count = 0 -- the number of objects parsed so far, over all bodies: each field keeps that of its last object

-- Collects the members for the object's text. The text replaces the first of them; the others are removed with their commas.
-- `before` is the end of the previous member.
local function move(extra, member, before, first, last)
  if extra then
    replace(before + 1, last, "")
    extra[#extra + 1] = member
    return extra
  end
  return { member, slot = replace(first, last, "") }
end

-- Returns the text of the members of an `extra_body`, empty if there are none.
local function members(text, first, last)
  return find(text, "^[ \t\r\n]*}", first + 1) and "" or sub(text, first + 1, last - 1)
end

local function finish(kind, extra, id, depth)
  local texts = {}
  for _, member in ipairs(extra) do
    texts[#texts + 1] = member ~= "" and member or nil
  end
  local carrier = kind.fields[kind.extra]
  if carrier and carrier.seen == id then
    if #extra == 1 and extra.original then
      edits.change(extra.slot, extra.original)
      return
    end
    fault(depth, "is given beside other parameters of the backend; put them all into one place", "value_error", kind.extra)
    notes.is_unusable = true
  end
  edits.change(extra.slot, ('"%s":%s'):format(kind.extra, json.text("{" .. concat(texts, ",") .. "}")))
end

-- Reads the field whose key begins at `first`. Returns the end of its value, and the text to move, if any. If a request has
-- both an object and its text, the object stays: the service uses the text.
local function read_field(text, kind, field, at, character, first, id, depth)
  path[depth] = field.name
  local last, is_changed = field.read(text, at, character, field, depth)
  if field.noted and character ~= NULL then
    notes[field.name] = sub(text, at, last)
  end
  if not field.text or character ~= OPENING_BRACE then
    return last, is_changed and kind.extra and sub(text, first, last)
  elseif field.text == kind.extra then
    return last, members(text, at, last), sub(text, first, last)
  end
  local twin, original = kind.fields[field.text], sub(text, first, last)
  if twin.seen ~= id then
    twin.place = replace(first, last, ('"%s":%s'):format(field.text, json.text(sub(text, at, last))))
    twin.replaced, twin.original = id, original
  end
  return last
end

-- Reports a key that an object within the value at `depth` has twice.
local function report_twice(depth)
  local key = json.take_twice()
  if key then
    fault(depth, ("has the key `%s` twice"):format(#key > MAX_KEY and sub(key, 1, MAX_KEY) .. "…" or key))
    notes.is_unusable = true
  end
end

-- Reports an unknown key that is given twice: as it is, in an `extra_body`, or in camel case beside a known field.
local function check_unknown(kind, key, unknown, id, depth)
  local snake = find(key, "%u") and key:gsub("%u", function(letter)
    return "_" .. letter:lower()
  end)
  local twin = snake and kind.fields[snake]
  if unknown[key] or twin and twin.seen == id then
    path[depth] = key
    fault(depth, twin and "is given twice, also as `" .. snake .. "`" or "is given twice")
  end
  unknown[key] = true
  if snake then
    unknown[snake] = true
  end
end

-- Adds the keys of an `extra_body`, which are sent like unknown keys.
local function check_extra(unknown, depth)
  for key in pairs(json.take_keys()) do
    if unknown[key] then
      fault(depth, ("has the key `%s`, which is also given beside it"):format(key))
    end
    unknown[key] = true
  end
end

-- Reads the object that begins at `at`, and returns its end.
local function read_object(text, at, kind, depth)
  count = count + 1
  local id, extra, character, unknown = count, nil, nil, nil
  local before, fields = at, kind.fields
  at, character = skip_space(text, at + 1)
  depth = depth + 1
  while character ~= CLOSING_BRACE do
    local first = at
    local last
    last, at, character = key_end(text, at, character)
    local key = json.key(text, first, last)
    local field = fields[key]
    local moved, original
    if field then
      if field.seen == id or unknown and unknown[field.name] then
        path[depth] = field.name
        fault(depth, "is given twice")
        notes.is_unusable = true
      elseif field.replaced == id then
        edits.change(field.place, field.original)
      end
      field.seen = id
      last, moved, original = read_field(text, kind, field, at, character, first, id, depth)
      if field.text == kind.extra and character == OPENING_BRACE then
        unknown = unknown or {}
        check_extra(unknown, depth)
      end
    else
      unknown = unknown or {}
      check_unknown(kind, key, unknown, id, depth)
      path[depth] = key
      last = value_end(text, at, character)
      moved = kind.extra and sub(text, first, last)
    end
    report_twice(depth)
    if moved then
      extra = move(extra, moved, before, first, last)
      extra.original = original
    end
    if half_pair and half_pair < last then
      path[depth] = field and field.name or sub(text, first + 1, find(text, '"', first + 1, true) - 1)
      fault(depth, "has half of a surrogate pair, which is no character: " .. sub(text, half_pair, half_pair + 5))
      half_pair, notes.is_unusable = nil, true
    end
    before = last
    at, character = next_item(text, last, CLOSING_BRACE)
  end
  if extra then
    finish(kind, extra, id, depth - 1)
  end
  return at
end

-- The readers of fields that contain objects, as those in values.lua.
local function read_object_or_null(text, at, first, field, depth)
  if first == OPENING_BRACE then
    return read_object(text, at, field.of, depth)
  elseif first == NULL then
    return scalar_end(text, at, first)
  end
  return values.error(text, at, first, field, depth)
end

local function read_object_item(text, at, first, item, depth)
  if first == OPENING_BRACE then
    return read_object(text, at, item.of, depth)
  end
  return values.error(text, at, first, item, depth)
end

local function read_objects(text, at, first, field, depth)
  return values.items(text, at, first, field, depth, read_object_item)
end

-- Returns what will be known of the next body, and the number of its first object.
local function begin(text)
  json.begin()
  half_pair, notes = json.half_pair(text), {}
  return notes, count + 1
end

return { begin = begin, read = read_object, object = read_object_or_null, objects = read_objects }
