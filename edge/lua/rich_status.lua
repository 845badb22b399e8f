-- Encodes a `google.rpc.Status` with ErrorInfo and RetryInfo, as in the trailer `grpc-status-details-bin` of the service.

local char, floor = string.char, math.floor
local TYPE = "type.googleapis.com/google.rpc."
local DOMAIN = "parley"

local function varint(number)
  if number < 128 then
    return char(number)
  end
  return char(128 + number % 128) .. varint(floor(number / 128))
end

-- Each returns a field of a message: its number, less than 16, with the type of its value, and the value.
local function number_field(number, value)
  return char(8 * number) .. varint(value)
end

local function bytes_field(number, bytes)
  return char(8 * number + 2) .. varint(#bytes) .. bytes
end

-- Returns an item of `Status.details`, a google.protobuf.Any.
local function detail(name, message)
  return bytes_field(3, bytes_field(1, TYPE .. name) .. bytes_field(2, message))
end

-- Returns the bytes of the status. `retry_after` is in seconds, nil for a status without RetryInfo.
return function(status, message, reason, retry_after)
  local rich = number_field(1, status) .. bytes_field(2, message)
  rich = rich .. detail("ErrorInfo", bytes_field(1, reason) .. bytes_field(2, DOMAIN))
  if retry_after then
    rich = rich .. detail("RetryInfo", bytes_field(1, number_field(1, retry_after)))
  end
  return rich
end
