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

-- Returns the number at `at`, and the position after it.
local function read_varint(bytes, at)
  local value, factor = 0, 1
  while true do
    local byte = bytes:byte(at)
    at = at + 1
    value, factor = value + byte % 128 * factor, 128 * factor
    if byte < 128 then
      return value, at
    end
  end
end

-- Returns the message with each bytes field replaced by the result of `change`, which gets the number of the field and the
-- bytes. Other fields must be numbers, as in `Status` and `Any`.
local function change_fields(message, change)
  local fields, at = {}, 1
  while at <= #message do
    local tag, size, first = nil, nil, at
    tag, at = read_varint(message, at)
    size, at = read_varint(message, at)
    if tag % 8 == 2 then
      local number = floor(tag / 8)
      fields[#fields + 1] = bytes_field(number, change(number, message:sub(at, at + size - 1)))
      at = at + size
    else
      fields[#fields + 1] = message:sub(first, at - 1)
    end
  end
  return table.concat(fields)
end

local function short_type(number, bytes)
  return number == 1 and bytes:gsub("^" .. TYPE, "") or bytes
end

local function with_short_type(number, bytes)
  return number == 3 and change_fields(bytes, short_type) or bytes
end

-- Returns the bytes of a status whose details have the names of their types instead of URLs, as Connect writes them.
function rich_status.with_short_types(bytes)
  return change_fields(bytes, with_short_type)
end

return rich_status
