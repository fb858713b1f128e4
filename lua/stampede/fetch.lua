-- Answer the cached value, or take the lock to load it, or tell how long another has it.
--
-- KEYS[1]  value     string, the cached copy
-- KEYS[2]  lock      string, the loader's token, TTL = ARGV[2]
-- KEYS[3]  fence     string, the number minted last, TTL = ARGV[3]
-- KEYS[4]  wake      list that waiters block on, TTL = ARGV[2]
-- ARGV[1]  token     random, proves who loads
-- ARGV[2]  ttl_ms    ms of the lock
-- ARGV[3]  keep_ms   ms that the last number is kept
-- ARGV[4]  woken     1 for one who was woken: it wakes the next
--
-- Returns  the value; or {1, number, now in ms}: load it; or {0, token, ms left}: another does
-- Atomic   look and lock are one step; nobody loads what was stored in between
-- Source   https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/

local value, lock, fence, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, ttl_ms, keep_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local woken = ARGV[4] == '1'

local cached = redis.call('GET', value)
if cached then
  if woken then
    redis.call('RPUSH', wake, 1)
    redis.call('PEXPIRE', wake, ttl_ms)
  end
  return cached
end
if not redis.call('SET', lock, token, 'NX', 'PX', ttl_ms) then
  return {0, redis.call('GET', lock), redis.call('PTTL', lock)}
end
redis.call('DEL', wake)

-- The number, as distributed_lock/acquire mints it: any lease of this lock has one.
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local number = math.max(tonumber(redis.call('GET', fence) or 0) + 1, now_us)
redis.call('SET', fence, string.format('%.0f', number), 'PX', keep_ms)
return {1, number, math.floor(now_us / 1000)}
