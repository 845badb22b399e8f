-- Conversions of text: percent-encoding of gRPC, forms, base64, and JSON strings.

local text = {}

-- Decodes a `grpc-message`: UTF-8 in which all but printable ASCII is percent-encoded.
function text.percent_decode(value)
  return (value:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

-- Returns the pairs of `name=value&name=value` in their order, each as {name, value}.
function text.form_decode(value)
  local pairs_found = {}
  for name, content in value:gmatch("([^=&]*)=([^&]*)") do
    pairs_found[#pairs_found + 1] = { text.percent_decode(name), text.percent_decode(content) }
  end
  return pairs_found
end

local FORM = { ["%"] = "%25", ["&"] = "%26", ["="] = "%3D" }

local function form_escape(value)
  return (value:gsub("[%%&=]", FORM))
end

-- The inverse of form_decode.
function text.form_encode(list)
  local parts = {}
  for place, pair in ipairs(list) do
    parts[place] = form_escape(pair[1]) .. "=" .. form_escape(pair[2])
  end
  return table.concat(parts, "&")
end

local BASE64 = {}
for place, byte in ipairs({ ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(1, -1) }) do
  BASE64[byte] = place - 1
end

-- Decodes base64, with or without padding.
function text.base64_decode(value)
  local bytes, bits, rest = {}, 0, 0
  for at = 1, #value do
    local six = BASE64[value:byte(at)]
    if six then
      bits, rest = bits + 6, rest * 64 + six
      if bits >= 8 then
        bits = bits - 8
        bytes[#bytes + 1] = string.char(math.floor(rest / 2 ^ bits))
        rest = rest % 2 ^ bits
      end
    end
  end
  return table.concat(bytes)
end

-- Returns the number of bytes of the UTF-8 character at `at`; nil if the bytes are not UTF-8.
local function character_length(value, at)
  if value:find("^[%z\1-\127]", at) then
    return 1
  elseif value:find("^[\194-\223][\128-\191]", at) then
    return 2
  elseif value:find("^\224[\160-\191][\128-\191]", at) or value:find("^\237[\128-\159][\128-\191]", at) then
    return 3
  elseif value:find("^[\225-\236\238\239][\128-\191][\128-\191]", at) then
    return 3
  elseif value:find("^\240[\144-\191][\128-\191][\128-\191]", at) or value:find("^\244[\128-\143][\128-\191][\128-\191]", at) then
    return 4
  elseif value:find("^[\241-\243][\128-\191][\128-\191][\128-\191]", at) then
    return 4
  end
end

-- Replaces every byte that is not UTF-8 with U+FFFD.
local function valid_utf8(value)
  if not value:find("[\128-\255]") then
    return value
  end
  local out, at = {}, 1
  while at <= #value do
    local length = character_length(value, at)
    out[#out + 1] = length and value:sub(at, at + length - 1) or "\239\191\189"
    at = at + (length or 1)
  end
  return table.concat(out)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Returns a JSON string, or null for nil.
function text.quote(value)
  if value == nil then
    return "null"
  end
  local escaped = valid_utf8(value):gsub('[%c"\\]', function(character)
    return ESCAPES[character] or ("\\u%04x"):format(character:byte())
  end)
  return '"' .. escaped .. '"'
end

return text
