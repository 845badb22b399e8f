-- Token buckets, one for each client address. Each thread of Envoy counts for itself.

local buckets = {}

local MAX_ADDRESSES = 1000

-- Returns a function that returns the state of an address: its `tokens` at a time in milliseconds. There are at most `capacity`,
-- and `rate` more each second. If there are too many addresses, all are forgotten: that takes as many addresses.
function buckets.new()
  local states, size = {}, 0
  return function(address, now, capacity, rate)
    local state = states[address]
    if state == nil then
      if size == MAX_ADDRESSES then
        states, size = {}, 0
      end
      state, size = { tokens = capacity, at = now }, size + 1
      states[address] = state
    end
    state.tokens = math.min(capacity, state.tokens + (now - state.at) * rate / 1000)
    state.at = now
    return state
  end
end

return buckets
