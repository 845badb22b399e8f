-- Which credentials of gRPC calls a worker must check before a message is read. The size of a message is not known at its start,
-- and a check of each call would cost too much. A credential that a worker has accepted is checked again twice a second; the
-- calls between two checks are trusted, until a check is rejected.

local trust = {}

local PERIOD = 500 -- milliseconds between two checks, within which a revoked key is noticed
local MAX_IDLE = 10000 -- milliseconds after the due check, within which a credential stays trusted
local MAX_CREDENTIALS = 1000

local due, size = {}, 0 -- when the next check is due, by credential
local pending = 0 -- the checks whose responses have not arrived

-- Whether a call with this credential needs no check.
function trust.is_trusted(credential, now)
  local at = due[credential]
  return at ~= nil and now < at
end

-- Whether a worker has accepted the credential, however long ago, and none has rejected it since.
function trust.is_known(credential)
  return due[credential] ~= nil
end

-- Whether a call with this credential must be checked.
function trust.needs_check(credential, now)
  local at = due[credential]
  if at and now < at then
    return false
  elseif at and now < at + MAX_IDLE then
    due[credential] = now + PERIOD
  end
  pending = pending + 1
  return true
end

-- Whether a response may be that of a checked call.
function trust.is_pending()
  return pending > 0
end

-- Records the result of the check of a credential; nil if it has none.
function trust.record(credential, is_accepted, now)
  pending = math.max(0, pending - 1)
  local known = due[credential]
  if is_accepted == false and known then
    due[credential], size = nil, size - 1
  elseif is_accepted and not (known and now < known + MAX_IDLE) then
    if size >= MAX_CREDENTIALS then
      due, size, known = {}, 0, nil
    end
    size = known and size or size + 1
    due[credential] = now + PERIOD
  end
end

return trust
