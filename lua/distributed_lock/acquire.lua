-- Take the lock if it is free, and mint the number that orders its holders.
--
-- KEYS[1]  lock      string, the holder's token, TTL = ARGV[2]
-- KEYS[2]  fence     string, the number minted last, TTL = ARGV[3]
-- KEYS[3]  wake      list that waiters block on; an old wake-up in it is void now
-- ARGV[1]  token     random, proves who holds the lock
-- ARGV[2]  ttl_ms    ms of the lease
-- ARGV[3]  keep_ms   ms that the last number is kept
--
-- Returns  {number, now in ms} if taken, {0, ms left of the other's lease} if not
-- Atomic   lock and number are one step; holders have numbers in the order of their holding
-- Source   https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html

local lock, fence, wake = KEYS[1], KEYS[2], KEYS[3]
local token, ttl_ms, keep_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if not redis.call('SET', lock, token, 'NX', 'PX', ttl_ms) then
  return {0, redis.call('PTTL', lock)}
end
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local last = tonumber(redis.call('GET', fence) or 0)
local number = math.max(last + 1, now_us)
redis.call('SET', fence, string.format('%.0f', number), 'PX', keep_ms)
redis.call('DEL', wake)
return {number, math.floor(now_us / 1000)}
