-- What wrk sends: the same request each time, or with arguments
-- (header, prefix, file) one of many in turn, with a line of the file behind the
-- prefix as the value of the header; with a fourth argument, that many lines of
-- a file of hosts go with them. At the end it prints one line of JSON.
local whole, before, after
local values, hosts = {}, {}
local turn = 0

local function lines(path, into)
  for line in io.lines(path) do into[#into + 1] = line end
end

init = function(args)
  if #args < 3 then
    whole = wrk.format()
    return
  end
  lines(args[3], values)
  if args[4] then lines(args[4], hosts) end
  -- The request is formatted once; each one is put together around a mark.
  wrk.headers[args[1]] = args[2] .. "\1"
  if #hosts > 0 then wrk.headers["Host"] = "\2" end
  local text = wrk.format()
  local at = text:find("\1", 1, true)
  before, after = text:sub(1, at - 1), text:sub(at + 1)
end

request = function()
  if whole then return whole end
  turn = turn % #values + 1
  local text = before .. values[turn] .. after
  if #hosts > 0 then text = text:gsub("\2", hosts[turn], 1) end
  return text
end

done = function(summary, latency, requests)
  io.write(string.format(
    '\n{"requests":%d,"duration":%d,"bytes":%d,"errors":%d,"refused":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.errors.status, latency:percentile(50), latency:percentile(99)))
end
