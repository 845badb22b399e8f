-- The large requests in progress, which need memory until their response has ended: Envoy keeps a message for a retry, and the
-- buffers of the transcoder. Each thread of Envoy counts for itself.

local progress = {}

-- Milliseconds between two searches for ended requests.
local INTERVAL = 5

-- The requests by their coroutine, which Envoy releases at the end of the request, however it ends; no script runs then.
local requests = setmetatable({}, { __mode = "k" })
local of_caller, total = {}, 0 -- the sums of their sizes, ended ones included
local searched_at = 0

local function count(request, size)
  request.size = request.size + size
  of_caller[request.caller] = (of_caller[request.caller] or 0) + size
  total = total + size
end

local function forget_ended(now)
  if now >= searched_at and now < searched_at + INTERVAL then
    return
  end
  searched_at = now
  collectgarbage()
  of_caller, total = {}, 0
  for _, request in pairs(requests) do
    local size = request.size
    request.size = 0
    count(request, size)
  end
end

local function excess(request, size)
  if (of_caller[request.caller] or 0) + size > request.of_caller then
    return "Too many large requests with this credential are in progress; try again when one of them has ended"
  elseif total + size > request.of_all then
    return "Too many large requests are in progress; try again later"
  end
end

-- Returns the record of a request of a caller. It must be called in the coroutine of the request.
--   limits   has `of_caller` and `of_all`: the largest sums of the requests of one caller, and of all, in bytes
function progress.begin(caller, limits)
  local request = { caller = caller, size = 0, of_caller = limits:get("of_caller"), of_all = limits:get("of_all") }
  requests[coroutine.running()] = request
  return request
end

-- Counts a request whose size is now known to be this one. Returns a failure (see credentials.lua) if it exceeds a limit, and
-- does not count it then. A request that alone exceeds it is larger than any body may be, for which another filter rejects it.
function progress.grow(request, size, now)
  local more = math.min(size, request.of_caller) - request.size
  if more <= 0 then
    return nil
  end
  if excess(request, more) then
    forget_ended(now)
  end
  local message = excess(request, more)
  if message then
    return { reason = "CONCURRENCY_LIMITED", status = 8, message = message, retry_after = 1, should_retry = true }
  end
  count(request, more)
end

return progress
