-- Admit a request while fewer than the limit were admitted within the window.
--
-- KEYS[1]  log        sorted set, a member an admitted unit, TTL = ARGV[2]
-- KEYS[2]  tally      optional, hash {admitted, rejected}, TTL = ARGV[5]
-- ARGV[1]  limit      units a window
-- ARGV[2]  window_ms  ms an admitted unit counts
-- ARGV[3]  cost       units, from 1 to the limit
-- ARGV[4]  member     random, so that two requests of one ms stay two
-- ARGV[5]  tally_ms   ms until the tally expires
--
-- Returns  {allowed 0|1, remaining units, retry_after_ms, reset_after_ms}
-- Atomic   count and add are one step on the server's clock
-- Source   https://redis.io/docs/latest/develop/use-cases/rate-limiter/

local log, tally = KEYS[1], KEYS[2]
local limit, window_ms, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local member, tally_ms = ARGV[4], tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', log, '-inf', now - window_ms)

local used = redis.call('ZCARD', log)
local allowed = used + cost <= limit
if allowed then
  for n = 1, cost do redis.call('ZADD', log, now, member .. n) end
  redis.call('PEXPIRE', log, window_ms)
  used = used + cost
end
if tally then
  redis.call('HINCRBY', tally, allowed and 'admitted' or 'rejected', 1)
  redis.call('PEXPIRE', tally, tally_ms)
end

local function leaves_in(rank)
  local entry = redis.call('ZRANGE', log, rank, rank, 'WITHSCORES')
  return entry[2] + window_ms - now
end
local reset = leaves_in(0)
if allowed then return {1, limit - used, 0, reset} end
return {0, math.max(limit - used, 0), leaves_in(used + cost - limit - 1), reset}
