-- Limits large bodies, or bodies of unknown size, while they arrive: the sum of those in progress (see progress.lua), and a
-- decompressed body. Envoy's buffer filter does not measure what has arrived during the check of the credential: a part of 32 KiB
-- that a decompressor makes a thousand times as large would pass it.
--
-- Beyond a limit the rest of the body is discarded; edge.lua rejects the request at its end.

package.path = "lua/?.lua"

local progress = require("progress")
local refusals = require("refusals")

-- A short JSON value needs as much memory as this many bytes of text.
local VALUE_BYTES = 6
-- A body of this size counts as it is: `expansion.lua` limits its values to what this size needs.
local MOST_VALUES = 768 * 1024

-- Returns about how many JSON values the text has. It also counts commas and brackets within strings.
local function values(text)
  local count, at = 0, 0
  repeat
    at = string.find(text, "[,{%[]", at + 1)
    count = count + 1
  until not at
  return count
end

-- The response to a request whose declared size exceeds a limit is sent at once.
local function refuse_declared(handle, request, known)
  local length = not known.gzip and tonumber(handle:headers():get("content-length") or "")
  local failure = length and progress.grow(request, length, handle:timestamp())
  if failure then
    handle:respond(refusals.headers(failure), "")
  end
  return length or 0
end

function envoy_on_request(handle)
  local known = handle:streamInfo():dynamicMetadata():get("parley") or {}
  if not known.check or known.too_large then
    return
  end
  local request = progress.begin(handle:headers():get("authorization") or "", handle:virtualHost():metadata())
  local counted, size, needed, is_over = refuse_declared(handle, request, known), 0, 0, false
  for chunk in handle:bodyChunks() do
    size = size + chunk:length()
    if size <= MOST_VALUES then
      needed = needed + VALUE_BYTES * values(chunk:getBytes(0, chunk:length()))
    end
    if not is_over and known.max_body and size > known.max_body then
      handle:streamInfo():dynamicMetadata():set("parley", "too_large", true)
      is_over = true
    elseif not is_over and math.max(size, needed) > counted then
      counted = math.max(size, needed)
      local failure = progress.grow(request, counted, handle:timestamp())
      if failure then
        handle:streamInfo():dynamicMetadata():set("parley", "refusal", refusals.keep(failure))
        is_over = true
      end
    end
    if is_over then
      chunk:setBytes("")
    end
  end
end
