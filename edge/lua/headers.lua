-- The limits of request headers, for both listeners.
--
-- A worker's gRPC library refuses headers at random once they exceed 20 KiB, each counted as 32 bytes longer than it is:
-- 12 KiB in 100 headers, and what the edge adds, always fit. Envoy's own limits are higher, because a request that exceeds those gets no answer in
-- HTTP/2, and in HTTP/1.1 one without a dialect.

local headers = {}

local MAX_SIZE, MAX_COUNT = 12 * 1024, 100

-- Returns what is wrong with the size of a request's headers, or nil.
function headers.excess(of)
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
