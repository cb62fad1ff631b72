-- Check-ins for wrk: each device in turn, with its own credential and a rising number.
-- Arguments: TOKENS_FILE FIRST_SEQ PROTOCOL DIGEST DURABLE_EVERY ROLLOUT_COUNT RELEASE SKIPPED
-- DURABLE_EVERY 10: each tenth check-in has an outcome that was never sent before; 0: none has.
local threads = 0

function setup(thread)
  thread:set("number", threads) -- of two
  threads = threads + 1
end

function init(arguments)
  local tokens_file = arguments[1]
  seq, protocol, digest = tonumber(arguments[2]), arguments[3], arguments[4]
  every, rollouts, release = tonumber(arguments[5]), tonumber(arguments[6]), arguments[7]
  tokens, rows, row = {}, {}, 0
  for line in io.lines(tokens_file) do
    if row % 2 == number then
      tokens[#tokens + 1] = line
      rows[#rows + 1] = row
    end
    row = row + 1
  end
  at, sent = math.floor(tonumber(arguments[8]) / 2) % #tokens, number
  head = "POST /device/v1/checkin HTTP/1.1\r\nHost: hub:8443\r\n"
    .. "Content-Type: application/json\r\nAuthorization: Bearer "
end

function request()
  at = at + 1
  if at > #tokens then
    at, seq = 1, seq + 1
  end
  sent = sent + 1
  local body = '{"protocol":' .. protocol .. ',"seq":' .. seq .. ',"digest":' .. digest
  if every > 0 and sent % every == 0 then
    local rollout = string.format("ro-%04d", rows[at] % rollouts)
    body = body .. ',"outcomes":[{"id":"' .. rollout .. "/" .. seq .. '/confirmed","rollout":"'
      .. rollout .. '","release":"' .. release .. '","kind":"confirmed","at":1767571201.0}]'
  end
  body = body .. "}"
  return head .. tokens[at] .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
