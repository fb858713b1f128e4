-- Add an entry to a stream, once per idempotency key, unless too many are there.
--
-- KEYS[1]  stream   stream of {payload, number}
-- KEYS[2]  once     string "id number", TTL = ARGV[3]
-- KEYS[3]  counter  string, the number of the newest entry, TTL = ARGV[4]
-- ARGV[1]  payload  bytes
-- ARGV[2]  cap      entries that the stream may hold
-- ARGV[3]  once_ms  ms the idempotency key is remembered
-- ARGV[4]  count_ms ms after the newest entry until its number is forgotten
--
-- Returns  {id, number, added 0|1}, or {} where the stream is full
-- Atomic   of two producers with one key, the second finds the entry of the first
-- Source   https://redis.io/docs/latest/commands/xadd/

local stream, once, counter = KEYS[1], KEYS[2], KEYS[3]
local payload, cap, once_ms, count_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]

local known = redis.call('GET', once)
if known then
  local id, number = known:match('(%S+) (%d+)')
  return {id, tonumber(number), 0}
end
if redis.call('XLEN', stream) >= cap then return {} end

local number = redis.call('INCR', counter)
redis.call('PEXPIRE', counter, count_ms)
local id = redis.call('XADD', stream, '*', 'payload', payload, 'number', number)
redis.call('SET', once, id .. ' ' .. number, 'PX', once_ms)
return {id, number, 1}
