-- The dialect of a host name: that of the name itself, of its longest ending (`*.example.com`), of its longest beginning
-- (`chat.*`), or of all others (`*`). The port and the case do not matter. A longer host than DNS has (RFC 1035) is one of the
-- others, since the search takes time by the square of its length, before the request is checked.

local hosts = {}

local MAX_HOST = 255 + #":65535"

-- The dialects by name, from the configuration, which does not change while Envoy runs.
local dialect_of

local function of_ending(host)
  local dot = host:find(".", 2, true)
  while dot do
    local dialect = dialect_of["*" .. host:sub(dot)]
    if dialect then
      return dialect
    end
    dot = host:find(".", dot + 1, true)
  end
end

local function of_beginning(host)
  local beginning = host:match("^(.*%.).")
  while beginning do
    local dialect = dialect_of[beginning .. "*"]
    if dialect then
      return dialect
    end
    beginning = beginning:match("^(.*%.)[^.]*%.$")
  end
end

function hosts.dialect(handle, headers)
  dialect_of = dialect_of or handle:virtualHost():metadata():get("dialects")
  local host = headers:get(":authority") or ""
  if #host > MAX_HOST then
    return dialect_of["*"]
  end
  host = host:lower():gsub(":%d*$", "")
  return dialect_of[host] or of_ending(host) or of_beginning(host) or dialect_of["*"]
end

return hosts
