-- Turns away callers without a key, and wrong keys before bodies are read, drops headers that gRPC cannot carry, and gives the
-- errors of our services the documented body.
-- Sits before the transcoders: it sees a request before they do, and an answer after they have made JSON of it.

local TYPE_OF_STATUS = {
  ["400"] = "invalid_request_error",
  ["401"] = "authentication_error",
  ["402"] = "insufficient_credits",
  ["403"] = "permission_error",
  ["404"] = "not_found_error",
  ["409"] = "invalid_request_error",
  ["429"] = "rate_limit_error",
  ["502"] = "provider_error",
}
local TYPE_OF_OUR_FAULTS = "service_unavailable"

-- What gRPC has no status for is told by the reason.
local STATUS_OF_REASON = { INSUFFICIENT_CREDITS = "402", PROVIDER_FAILED = "502" }

-- What the transcoder makes of CANCELLED, INTERNAL, UNIMPLEMENTED and DEADLINE_EXCEEDED is not in our contract.
local STATUS_INSTEAD_OF = { ["499"] = "503", ["500"] = "503", ["501"] = "404", ["504"] = "503" }

local UNAUTHENTICATED = "16"
local EMPTY_MESSAGE = "\0\0\0\0\0" -- not compressed, of no length
local ASK_MILLISECONDS = 1000

local RETRY_AFTER_SECONDS = "1" -- where waiting helps and the service did not say how long

-- HTTP lets more into a header than gRPC takes: services would break the call off, and the fault would look like ours.
local function drop_what_grpc_refuses(headers)
  local is_grpc = (headers:get("content-type") or ""):find("^application/grpc")
  local refused = {}
  for name, value in pairs(headers) do
    local is_odd = not name:find("^:?[%w_.-]+$") or value:find("[^\32-\126]")
    if is_odd or (name:find("-bin$") and not is_grpc) then refused[#refused + 1] = name end
  end
  for _, name in ipairs(refused) do headers:remove(name) end
end

-- Whether services turn the key away; false where none can be asked. They look at it before anything else, and nobody has
-- the call that is asked for.
local function is_unknown_key(handle, headers)
  local question = {
    [":method"] = "POST",
    [":path"] = "/tollgate.reporting.v1.RequestService/GetRequest",
    [":authority"] = "tollgate",
    ["content-type"] = "application/grpc",
    ["te"] = "trailers",
    ["authorization"] = headers:get("authorization"),
    ["x-api-key"] = headers:get("x-api-key"),
  }
  local answer = handle:httpCall("reporting", question, EMPTY_MESSAGE, ASK_MILLISECONDS)
  return answer["grpc-status"] == UNAUTHENTICATED
end

-- A transcoder refuses a wrong body before a service has looked at the key, so that is done here where there may be one.
local function may_have_body(headers)
  local is_grpc = (headers:get("content-type") or ""):find("^application/grpc")
  return headers:get(":method") ~= "GET" and not is_grpc
end

function envoy_on_request(handle)
  local headers = handle:headers()
  drop_what_grpc_refuses(headers)
  local has_key = headers:get("authorization") or headers:get("x-api-key")
  if has_key and not (may_have_body(headers) and is_unknown_key(handle, headers)) then return end
  handle:respond(
    { [":status"] = "401", ["www-authenticate"] = "Bearer" },
    "This needs a valid API key; send it as 'Authorization: Bearer <key>'."
  )
end

-- What a google.rpc.Status printed by the transcoder says: message, reason and seconds to wait, or nothing.
-- Quotes inside JSON strings are escaped, so no message can end the first match early or pose as a reason.
local function status_in(body)
  local message, details = body:match('^{"code":%d+,"message":"(.-)","details":(%[.*)$')
  if not message then return end
  local seconds = details:match('"retry_delay":"(%d+)') or details:match('"retryDelay":"(%d+)')
  return message, details:match('"reason":"([A-Z0-9_]+)"'), seconds
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type") or ""
  if content_type:find("^application/grpc") then return end

  -- The transcoder leaves these behind on successes.
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("grpc-accept-encoding")

  -- A service cannot answer 304; it says so, and answers with nothing.
  if headers:get("x-tollgate-not-modified") then
    handle:body():setBytes("")
    headers = handle:headers()
    headers:replace(":status", "304")
    for _, name in ipairs({ "x-tollgate-not-modified", "content-type", "content-length" }) do headers:remove(name) end
    return
  end

  local status = headers:get(":status")
  if tonumber(status) < 400 or content_type ~= "application/json" then return end
  local buffer = handle:body()
  if not buffer then return end
  local message, reason, seconds = status_in(buffer:getBytes(0, buffer:length()))
  if not message then return end -- Envoy's own reply, in its final shape already

  status = STATUS_OF_REASON[reason] or STATUS_INSTEAD_OF[status] or status
  local kind = TYPE_OF_STATUS[status] or TYPE_OF_OUR_FAULTS
  local code = (reason or kind):lower()
  if status == "429" or status == "503" then seconds = seconds or RETRY_AFTER_SECONDS end

  headers = handle:headers() -- body() yields, and what was taken before a yield is dead after it
  headers:replace(":status", status)
  headers:remove("content-disposition")
  if seconds then headers:replace("retry-after", seconds) end
  if status == "401" then headers:replace("www-authenticate", "Bearer") end
  buffer:setBytes(
    string.format('{"error":{"message":"%s","type":"%s","code":"%s"},"message":"%s"}', message, kind, code, message)
  )
end
