-- The challenge of a refused credential (RFC 9110, 11.6.1; RFC 6750, 3), with the URL of the service's metadata (RFC 9728, 5.1).
-- The service writes the challenges of the credentials that it refuses.

local challenges = {}

local PLAIN = 'Bearer realm="parley"'
local OF_REASON = {
  MISSING_API_KEY = PLAIN, -- without an error: the request has no credential
  INVALID_API_KEY = PLAIN .. ', error="invalid_token", error_description="Invalid API key"',
}

-- Returns the challenge of the edge's own refusal, nil for a refusal that another credential does not mend.
function challenges.of_reason(reason)
  return OF_REASON[reason]
end

-- Returns the challenge of a response with this status: the service's own, or a plain one for a 401 without it.
function challenges.of_response(headers, status)
  local own = headers:get("www-authenticate") or OF_REASON[headers:get("parley-error-reason")]
  return own or status == 401 and PLAIN or nil
end

-- Returns the challenge with the URL of the metadata, unless it has one.
--   url       the URL, or its path; nil if no access tokens are accepted
--   origin    the scheme and the host of the request, for a path
function challenges.with_metadata(challenge, url, origin)
  if url and url:sub(1, 1) == "/" then
    url = origin and origin:find("^https?://[%w._:%[%]-]+$") and origin .. url
  end
  if not url or challenge:find("resource_metadata=", 1, true) then
    return challenge
  end
  return ('%s, resource_metadata="%s"'):format(challenge, url)
end

return challenges
