-- The replaced parts of one body, and its faults. Bodies are parsed one at a time, without yielding.

local concat, sub = table.concat, string.sub
local MAX_FAULTS = 100

local text, pieces, count, done, faults
local path = {}

-- The path of the value that is parsed: the names of fields and the indexes of items, from 1 to a depth that the functions
-- pass on.
local edits = { path = path }

function edits.begin(content)
  text, pieces, count, done, faults = content, {}, 0, 0, {}
end

-- Adds a fault of the value at `depth`, or of its member `name`. `sort` is pydantic's name for the kind of fault.
function edits.fault(depth, rule, sort, name)
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

-- Copies the text from the last replaced part to before `first`, and replaces `first` to `last` with `replacement`. Returns
-- the number of the replacement, for `change`.
function edits.replace(first, last, replacement)
  pieces[count + 1] = sub(text, done + 1, first - 1)
  pieces[count + 2] = replacement
  count, done = count + 2, last
  return count
end

-- Changes a replacement.
function edits.change(number, replacement)
  pieces[number] = replacement
end

-- Returns the faults, and the text with its replaced parts, nil if it has none.
function edits.finish()
  local found, changed = faults, nil
  if done > 0 then
    pieces[count + 1] = sub(text, done + 1)
    changed = concat(pieces)
  end
  text, pieces, faults = nil, nil, nil
  return found, changed
end

return edits
