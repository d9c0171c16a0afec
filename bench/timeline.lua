-- Counts good answers by tenths of a second, so that a dip in throughput shows; as one line of JSON at the end.
local ffi = require("ffi")
ffi.cdef [[
   typedef struct { long seconds; long nanoseconds; } moment;
   int clock_gettime(int clock, moment *now);
]]
local REALTIME = 0
local now = ffi.new("moment")
local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   counts = {}
   bad = 0
end

function response(status, headers, body)
   if status ~= 200 then
      bad = bad + 1
      return
   end
   ffi.C.clock_gettime(REALTIME, now)
   local tenth = tostring(tonumber(now.seconds) * 10 + math.floor(tonumber(now.nanoseconds) / 1e8))
   counts[tenth] = (counts[tenth] or 0) + 1
end

function done(summary, latency, requests)
   local total, failures = {}, 0
   for _, thread in ipairs(threads) do
      failures = failures + thread:get("bad")
      for tenth, count in pairs(thread:get("counts")) do
         total[tenth] = (total[tenth] or 0) + count
      end
   end
   local e = summary.errors
   failures = failures + e.connect + e.read + e.write + e.timeout
   local parts = {}
   for tenth, count in pairs(total) do
      table.insert(parts, string.format('"%s": %d', tenth, count))
   end
   io.write(string.format('{"requests": %d, "failures": %d, "tenths": {%s}}\n',
      summary.requests, failures, table.concat(parts, ", ")))
end
