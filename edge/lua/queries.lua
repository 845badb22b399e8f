-- The parameters of a query. Lists reject those that they do not have: a filter that is ignored would change the meaning of the
-- answer. Other paths have none, and ignore all: the transcoder would let a query override the path and the body.

local queries = {}

-- The parameters of each list, in the order of the API document.
local PARAMETERS = {
  { "^/api/v1/sessions$", { "page_size", "page_token", "model", "updated_after", "updated_before", "query", "labels" } },
  { "^/api/v1/account/export$", { "model" } },
  { "^/api/v1/sessions/[^/]+/messages$", { "page_size", "page_token", "after_turn" } },
  { "^/v1/usage$", { "since", "until", "by", "account" } },
  { "^/api/v1/usage$", { "since", "until", "by", "account" } },
}

-- Parameters that clients add to every call, and that select nothing: Azure's version, and the mark of Anthropic's beta methods.
local IGNORED = { ["api-version"] = true, beta = true }

local MAX_NAME = 64

for _, row in ipairs(PARAMETERS) do
  row.allowed = {}
  for place, name in ipairs(row[2]) do
    row.allowed[name] = true
    row[2][place] = "`" .. name .. "`"
  end
  row.names = table.concat(row[2], ", ")
end

local function row_of(path)
  for _, row in ipairs(PARAMETERS) do
    if path:find(row[1]) then
      return row
    end
  end
end

local function decoded(name)
  return (name:gsub("+", " "):gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

-- Returns the name for a message: printable ASCII of limited length.
local function shown(name)
  return (name:gsub("[^ -_a-~]", "?"):sub(1, MAX_NAME))
end

-- Returns the path with the parameters that it has, or the message and the name of a parameter that it does not have.
function queries.read(line)
  local path, query = line:match("^([^?]*)%?(.*)$")
  if not path then
    return line
  end
  local row, kept = row_of(path), {}
  for part in (row and query or ""):gmatch("[^&]+") do
    local name = decoded(part:match("^[^=]*"))
    if row.allowed[name] then
      kept[#kept + 1] = part
    elseif not IGNORED[name] then
      return nil, ("Unknown query parameter `%s`; the parameters of this URL are %s"):format(shown(name), row.names), shown(name)
    end
  end
  return #kept == 0 and path or path .. "?" .. table.concat(kept, "&")
end

return queries
