-- Give the lock back if it is still ours, and wake one who waits.
--
-- KEYS[1]  lock      string, the holder's token
-- KEYS[2]  wake      list, one entry at most, TTL = ARGV[2]
-- ARGV[1]  token     the holder's
-- ARGV[2]  wake_ms   ms that a wake-up stays for somebody about to wait
--
-- Returns  1 if it was ours, 0 if the lease had ended
-- Atomic   compare and delete are one step; a lease that ends in between is not lost on another
-- Source   https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/

local lock, wake = KEYS[1], KEYS[2]
local token, wake_ms = ARGV[1], tonumber(ARGV[2])

if redis.call('GET', lock) ~= token then return 0 end
redis.call('DEL', lock)
redis.call('RPUSH', wake, 1)
redis.call('PEXPIRE', wake, wake_ms)
return 1
