-- The first script. When the headers of a request have arrived, it sets the ids, finds the dialect, and rejects what needs no
-- body for that; then it reads a small body. Larger ones have further filters: see edge.lua. What these and the response must
-- know is in the dynamic metadata: the dialect in `parley.dialect`, and in `parley` what most requests do not have.

package.path = "lua/?.lua"
collectgarbage("setpause", 120) -- a state then grows to 0.4 MB, not 0.7; there is one for each thread

local cors = require("cors")
local credentials = require("credentials")
local dialects = require("dialects")
local excess = require("headers").excess
local files = require("files")
local hosts = require("hosts")
local queries = require("queries")
local refusals = require("refusals")
local requests = require("requests")
local responses = require("responses")

math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)"), 16) % 2 ^ 31)

-- An id is copied to logs and headers: it must be printable ASCII, up to 256 bytes.
local function is_plain(id)
  return id ~= nil and #id <= 256 and id:find("^[ -~]+$") ~= nil
end

local function new_id()
  local random = math.random
  return ("%08x%08x%08x%08x"):format(random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1), random(0, 2 ^ 32 - 1))
end

local function name_ids(headers)
  local request_id = headers:get("x-request-id")
  if not is_plain(request_id) then
    request_id = new_id()
    headers:replace("x-request-id", request_id)
  end
  if not is_plain(headers:get("x-correlation-id")) then
    headers:replace("x-correlation-id", request_id)
  end
end

-- The first segment of the path names the dialect; without a name, the host decides. The name is removed where a route
-- serves the path. A path without a route is kept, so that the transcoder does not find a method for it; extra slashes and
-- capital letters do not change the dialect of its error. Returns the dialect and the path.
local function choose_dialect(line, handle, headers, is_served)
  local first, rest = line:match("^/+(%w+)(/.*)$")
  first = first and first:lower()
  if first == "v1" then
    return "openai", line
  elseif not dialects[first] then
    return hosts.dialect(handle, headers), line
  end
  return first, is_served and rest or line
end

local LISTS = {
  { "^/v1/models$", "data" },
  { "^/api/v1/models$", "data" },
  { "^/v1/usage$", "data" },
  { "^/api/v1/usage$", "data" },
  { "^/api/v1/sessions$", "sessions" },
  { "^/api/v1/sessions/[^/]+/messages$", "messages" },
}

-- Returns the key of the requested list, nil for other paths.
local function list_of(path)
  path = path:match("^[^?]*")
  for _, row in ipairs(LISTS) do
    if path:find(row[1]) then
      return row[2]
    end
  end
end

local HAS_BODY = { POST = true, PATCH = true }

-- Returns the status for headers that are rejected, and the message if the status has another one by default.
local function refusal(headers)
  local message = excess(headers)
  if message then
    return "431", message
  elseif (headers:get(":authority") or ""):find(",", 1, true) then
    return "400", "The request must have one Host header" -- RFC 9112, 3.2
  elseif headers:get("expect") then
    -- Envoy itself answers and removes an expectation of `100-continue`.
    return "417", "The request has an expectation other than 100-continue" -- RFC 9110, 10.1.1
  end
end

-- Returns the coding of a body, `gzip` or `identity`, or nil for any other. `x-gzip` is an alias (RFC 9110, 8.4.1.3).
local function coding_of(headers)
  local coding = (headers:get("content-encoding") or "identity"):lower()
  if coding == "identity" then
    headers:remove("content-encoding")
    return coding
  elseif coding == "gzip" or coding == "x-gzip" then
    headers:replace("content-encoding", "gzip")
    return "gzip"
  end
end

-- A body up to this many times the limit is read and discarded before it is rejected: a client that cannot finish writing
-- its request seldom reads the response.
local DROPPED = 4

-- The same for a request without a credential: a body up to this size is read, a larger one is not. The routes of small bodies
-- in envoy.yaml have the same limit.
local MAX_STRANGE_BODY = 64 * 1024

-- Whether a worker must check the credential before the body is read: it is large, or its size is not known. Envoy removes
-- `transfer-encoding` before the scripts run.
local function needs_check(headers, length, is_gzip)
  return length > MAX_STRANGE_BODY or is_gzip or headers:get("content-length") == nil
end

local function discard_body(handle)
  for chunk in handle:bodyChunks() do
    chunk:setBytes("")
  end
end

-- Rejects a body by its declared length, at once or at its end.
local function refuse_large(handle, length, limit, found)
  if length > DROPPED * limit then
    handle:respond({ [":status"] = "413" }, "")
  elseif length > limit then
    found:set("parley", "too_large", true)
    discard_body(handle)
  end
end

-- Rejects a request by its credential, at once or at the end of a small body.
local function refuse(handle, route, length, failure)
  if length > 0 and route:get("small") then
    handle:body()
  end
  handle:respond(refusals.headers(failure), "")
end

-- Admits a request of gRPC-Web or Connect. lua/rpc.lua checks the rest, and writes errors in its protocol.
local function arrive_rpc(handle, headers, length, failure, found)
  found:set("parley", "rpc", headers:get("content-type") or "")
  if failure and length > 0 and length <= MAX_STRANGE_BODY then
    found:set("parley", "refusal", refusals.keep(failure))
    discard_body(handle)
  elseif failure then
    handle:respond(refusals.headers(failure), "")
  elseif needs_check(headers, length, false) then
    found:set("parley", "check", true)
  end
end

-- Prepares a request without a body for the service; the body of any other method is discarded.
local function arrive_without_body(handle, headers, line, method, found)
  if method == "GET" then
    local list = list_of(line)
    if list then
      found:set("parley", "list", list)
      line = list == "messages" and requests.with_verb(line, ":json") or line
    end
  elseif method == "HEAD" then
    found:set("parley", "no_body", true)
  end
  requests.set_path(headers, line)
  discard_body(handle)
end

-- Admits a request of a static file.
local function arrive_for_file(handle, headers, found)
  if headers:get(":method") == "HEAD" then
    found:set("parley", "no_body", true)
  end
  local failure = files.refusal(handle)
  if failure then
    return handle:respond(refusals.headers(failure), "")
  end
  found:set("parley", "file", true)
  headers:remove("content-length")
  discard_body(handle)
end

-- Reads a small body of the given type. Waiting for it invalidates the other objects of the handle.
local function read_body(handle, kind, line, length, limit, dialect)
  local buffer = length <= DROPPED * limit and handle:body()
  if length > limit then
    return handle:respond({ [":status"] = "413" }, "")
  end
  requests.rewrite(handle, buffer, kind, line, dialect, false, true)
end

-- Prepares the filters that read any other body.
local function arrive_large(handle, headers, line, length, limit, found)
  requests.set_path(headers, line)
  local coding = coding_of(headers)
  if coding == nil then
    found:set("parley", "unfit", "`Content-Encoding` must be gzip or identity")
    return handle:respond({ [":status"] = "415", ["accept-encoding"] = "gzip" }, "") -- RFC 7694, 3
  elseif coding == "gzip" then
    found:set("parley", "gzip", true)
  end
  if needs_check(headers, length, coding == "gzip") then
    found:set("parley", "check", true)
    found:set("parley", "max_body", limit)
  end
  refuse_large(handle, length, limit, found)
end

-- Returns the path that the service gets, or nil if the request has been rejected for its query.
local function read_query(handle, line, found)
  local path, unknown, name = queries.read(line)
  if not path then
    found:set("parley", "unfit", unknown)
    found:set("parley", "parameter", name)
    handle:respond({ [":status"] = "400" }, "")
  elseif path:find(":", 1, true) then
    -- The transcoder reads a colon in the last segment as the start of a custom verb; an id may contain one.
    return (path:gsub(":", "%%3A"))
  end
  return path
end

-- Continues a request of REST whose dialect is known.
local function arrive(handle, headers, route, line, length, dialect, failure, found)
  headers:replace("parley-dialect", dialect) -- for metrics; a caller's own was removed
  local status, message = refusal(headers)
  if status then
    if message then
      found:set("parley", "unfit", message)
    end
    return handle:respond({ [":status"] = status }, "")
  elseif failure then
    return refuse(handle, route, length, failure)
  elseif route:get("file") then
    return arrive_for_file(handle, headers, found)
  end
  line = read_query(handle, line, found)
  if not line then
    return
  end
  local method = headers:get(":method")
  if not (route:get("served") and HAS_BODY[method]) then
    return arrive_without_body(handle, headers, line, method, found)
  end
  local limit = handle:virtualHost():metadata():get("max_body")
  if route:get("small") then
    return read_body(handle, route:get("body"), line, length, limit, dialect)
  end
  arrive_large(handle, headers, line, length, limit, found)
end

function envoy_on_request(handle)
  local headers, route = handle:headers(), handle:metadata()
  local found = handle:streamInfo():dynamicMetadata()
  name_ids(headers)
  local origin = headers:get("origin")
  if origin and cors.allows(handle:virtualHost():metadata():get("cors_origins"), origin) then
    found:set("parley", "origin", origin)
    if cors.is_preflight(headers) then
      return handle:respond(cors.preflight(headers))
    end
  end
  local line, is_served = headers:get(":path") or "", route:get("served")
  if not is_served then
    found:set("parley", "unserved", headers:get(":method") .. " " .. line:match("^[^?]*"))
  end
  local dialect
  dialect, line = choose_dialect(line, handle, headers, is_served)
  found:set("parley.dialect", "name", dialect)
  local length = tonumber(headers:get("content-length") or "0") or 0
  local failure = is_served and credentials.failure(handle, headers)
  if route:get("rpc") then
    return arrive_rpc(handle, headers, length, failure, found)
  end
  arrive(handle, headers, route, line, length, dialect, failure, found)
end

envoy_on_response = responses.complete
