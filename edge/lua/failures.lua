-- Counts the failed credentials of each client address, and logs them. An address may fail BURST times at once and then once a
-- second; more are answered with a delay. Each thread of Envoy counts for itself. The workers count those that they find.

local buckets = require("buckets")

local failures = {}

local BURST, PER_SECOND = 100, 1
local CHECK_INTERVAL = 200 -- milliseconds
-- The lines of the log that may be written at once, and then one a second.
local MAX_LINES = 20

-- A credential that is refused without a check.
local UNCHECKED = { reason = "RATE_LIMITED", message = "The credential was not checked", fault = "unchecked" }

local bucket_of = buckets.new()
local lines, lines_at = MAX_LINES, 0

-- Returns an address without its port; of an IPv6 address the network of 64 bits, which a provider gives to one customer.
function failures.client(address)
  local host = address:match("^%[(.*)%]:%d+$")
  if host == nil then
    return (address:gsub(":%d+$", ""))
  end
  local mapped = host:match("^::[fF][fF][fF][fF]:(%d+%.%d+%.%d+%.%d+)$")
  if mapped then
    return mapped
  end
  local groups = {}
  local head, tail = host:match("^(.-)::(.*)$")
  for group in (head or host):gmatch("[^:]+") do
    groups[#groups + 1] = group
  end
  if head then
    local after = select(2, tail:gsub("[^:]+", ""))
    for _ = #groups + after + 1, 8 do
      groups[#groups + 1] = "0"
    end
    for group in tail:gmatch("[^:]+") do
      groups[#groups + 1] = group
    end
  end
  return table.concat(groups, ":", 1, 4) .. "::/64"
end

-- Returns the state of an address: its `tokens`; the `count` of the failures that this script has found since it had all of them;
-- `has_failed`, whether a worker has found one since then.
local function state_of(client, now)
  local state = bucket_of(client, now, BURST, PER_SECOND)
  if state.tokens == BURST then
    state.count, state.has_failed = 0, false
  end
  return state
end

-- Whether the failure of this number is logged: the first ten, then each power of two.
local function is_logged(count)
  if count > 10 then
    local _, exponent = math.frexp(count)
    if count ~= 2 ^ (exponent - 1) then
      return false
    end
  end
  return true
end

local function take_line(now)
  lines = math.min(MAX_LINES, lines + (now - lines_at) / 1000)
  lines_at = now
  if lines < 1 then
    return false
  end
  lines = lines - 1
  return true
end

-- Sets the fields of the access log of envoy.yaml, which writes the line.
local function log(handle, client, count, failure)
  handle:streamInfo():dynamicMetadata():set("parley", "refused", {
    reason = failure.reason,
    error = failure.message,
    credential = failure.fault,
    client = client,
    failures = count,
  })
end

local function state_of_caller(handle)
  local now, client = handle:timestamp(), failures.client(handle:streamInfo():downstreamRemoteAddress())
  return state_of(client, now), now, client
end

local function seconds_until_token(state)
  return math.ceil(1 - state.tokens)
end

-- Counts a failure, and logs it.
local function add(handle, state, now, client, failure)
  state.count = state.count + 1
  if is_logged(state.count) and take_line(now) then
    log(handle, client, state.count, failure)
  else
    handle:streamInfo():dynamicMetadata():set("parley", "unlogged", true)
  end
end

-- Records a failure and logs it. Returns the seconds until the client should try again if it is over its limit, else nil.
--   failure   its reason, message, and fault: `missing` or `malformed`
function failures.record(handle, failure)
  local state, now, client = state_of_caller(handle)
  add(handle, state, now, client, failure)
  if state.tokens < 1 then
    return seconds_until_token(state)
  end
  state.tokens = state.tokens - 1
end

-- Begins a worker's check of a credential that no worker has accepted yet. Checks whose results are not known count like
-- failures if one has failed: a flood of them ends before all have reached a worker. Beyond the limit there is a check each
-- CHECK_INTERVAL, so that a valid credential finds its way. Returns the seconds until the client should try again, or nil.
function failures.begin_check(handle)
  local state, now, client = state_of_caller(handle)
  if state.tokens < 1 and state.has_failed and now < (state.checked_at or 0) + CHECK_INTERVAL then
    add(handle, state, now, client, UNCHECKED)
    return seconds_until_token(state)
  end
  state.tokens, state.checked_at = math.max(0, state.tokens - 1), now
end

-- Records the result of such a check.
function failures.end_check(handle, is_accepted)
  local state = state_of_caller(handle)
  if is_accepted then
    state.tokens = math.min(BURST, state.tokens + 1)
  else
    state.has_failed = true
  end
end

return failures
