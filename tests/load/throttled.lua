-- wrk: many connections of one client, against the report of the server.
--
--   wrk -t2 -c300 -d30s -s tests/load/throttled.lua http://127.0.0.1:8000/api/throttled/fixed-window
--   curl 'http://127.0.0.1:8000/api/throttled/fixed-window/report?client=load'
--
-- The report may be ahead by up to one request a connection: wrk does not wait for
-- those that are under way when its time is over.

local threads = {}

wrk.headers["X-API-Key"] = "load"

function setup(thread)
  table.insert(threads, thread)
end

function init()
  n200, n429, other = 0, 0, 0
end

function response(status)
  if status == 200 then
    n200 = n200 + 1
  elseif status == 429 then
    n429 = n429 + 1
  else
    other = other + 1
  end
end

function done(summary)
  local totals = {}
  for _, name in ipairs({"n200", "n429", "other"}) do
    totals[name] = 0
    for _, thread in ipairs(threads) do
      totals[name] = totals[name] + thread:get(name)
    end
  end
  print(string.format("admitted %d, rejected %d, anything else %d",
    totals.n200, totals.n429, totals.other))
end
