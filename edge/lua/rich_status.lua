-- Encodes a `google.rpc.Status` with ErrorInfo and RetryInfo, as in the trailer `grpc-status-details-bin` of the service.

local char, floor = string.char, math.floor
local TYPE = "type.googleapis.com/"
local DOMAIN = "parley"

local rich_status = {}

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

-- Returns the details of a failure, {name, message} each. A failure:
--   status        the number of the gRPC status
--   message       the message
--   reason        the reason
--   retry_after   the seconds until a retry, or nil
--   should_retry  whether the same call may succeed later
function rich_status.details(failure)
  local found = { { "google.rpc.ErrorInfo", bytes_field(1, failure.reason) .. bytes_field(2, DOMAIN) } }
  if failure.retry_after then
    found[2] = { "google.rpc.RetryInfo", bytes_field(1, number_field(1, failure.retry_after)) }
  end
  return found
end

-- Returns the bytes of the failure's status.
function rich_status.encode(failure)
  local rich = number_field(1, failure.status) .. bytes_field(2, failure.message)
  for _, detail in ipairs(rich_status.details(failure)) do
    rich = rich .. bytes_field(3, bytes_field(1, TYPE .. detail[1]) .. bytes_field(2, detail[2]))
  end
  return rich
end

return rich_status
