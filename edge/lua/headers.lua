-- The limits of request headers, for both listeners.
--
-- A worker's gRPC library rejects headers at random above 20 KiB, and adds 32 bytes for each header. 12 KiB in 100 headers,
-- and those that the edge adds, always fit. Envoy's own limits are higher, because a request that exceeds them gets no
-- response in HTTP/2, and one without a dialect in HTTP/1.1.

local headers = {}

local MAX_SIZE, MAX_COUNT = 12 * 1024, 100

-- Envoy sets it on headers above 8 KiB or 80 in number, see envoy.yaml: to measure others would cost more than all else here.
local LARGE = "parley-large-headers"

-- Returns the error message for headers that exceed the limits, or nil.
function headers.excess(of)
  if of:get(LARGE) == nil then
    return nil
  end
  of:remove(LARGE)
  local size, count = 0, 0
  for name, value in pairs(of) do
    size, count = size + #name + #value, count + 1
  end
  if count > MAX_COUNT then
    return ("The request has more than %d headers"):format(MAX_COUNT)
  elseif size > MAX_SIZE then
    return "The request headers are larger than 12 KiB"
  end
end

return headers
