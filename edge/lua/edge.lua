-- The script of bodies that are large, compressed or of unknown size, run when the body has arrived and Envoy has decompressed it.
-- arrival.lua reads the others itself, which saves a script.

package.path = "lua/?.lua"

-- Loaded by the first request: Envoy has a state of Lua for each script and thread, and they take 0.3 MB in each.
local function load()
  return require("refusals"), require("requests")
end

function envoy_on_request(handle)
  local is_loaded, refusals, requests = pcall(load)
  if not is_loaded then -- for example, another version of Parley was installed meanwhile
    handle:logErr(refusals .. ": restart Parley")
    return handle:respond({ [":status"] = "503" }, "") -- without the script, the service would get another request
  end
  local known = handle:streamInfo():dynamicMetadata()
  local request, kind = known:get("parley") or {}, handle:metadata():get("body")
  if request.refusal then
    return handle:respond(refusals.headers(request.refusal), "")
  elseif request.too_large then
    return handle:respond({ [":status"] = "413" }, "")
  elseif not kind then
    return -- the body is bytes for the service
  end
  local path, dialect = handle:headers():get(":path"), known:get("parley.dialect").name
  local buffer = handle:body()
  if request.max_body and buffer and buffer:length() > request.max_body then
    return handle:respond({ [":status"] = "413" }, "")
  end
  requests.rewrite(handle, buffer, kind, path, dialect, request.gzip, false)
end
