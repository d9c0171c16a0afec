-- wrk's figures as one line of JSON, after its own.
function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "bytes": %d, "failures": %d, "statuses": %d, "p50": %.6f, "p99": %.6f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
