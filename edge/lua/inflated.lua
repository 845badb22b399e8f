-- Limits a decompressed body. Envoy's buffer filter does not measure what has arrived during the check of the credential: a part of
-- 32 KiB that a decompressor makes a thousand times as large would pass it. Beyond the limit the body is discarded; edge.lua
-- rejects the request at its end.

function envoy_on_request(handle)
  local limit, size = handle:streamInfo():dynamicMetadata():get("parley").max_body, 0
  for chunk in handle:bodyChunks() do
    size = size + chunk:length()
    if limit and size > limit then
      handle:streamInfo():dynamicMetadata():set("parley", "too_large", true)
      chunk:setBytes("")
    end
  end
end
