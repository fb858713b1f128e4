-- Lengthen the lease if it is still ours, up to an end that nothing moves.
--
-- KEYS[1]  lock      string, the holder's token
-- ARGV[1]  token     the holder's
-- ARGV[2]  ttl_ms    ms of the lease from now on
-- ARGV[3]  end_ms    ms by the server's clock after which nobody may hold it
--
-- Returns  ms left of the lease, or -1: it is not ours
-- Atomic   compare and extend are one step; the lease of the next holder is never touched
-- Source   https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/

local lock = KEYS[1]
local token, ttl_ms, end_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if redis.call('GET', lock) ~= token then return -1 end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local wanted = math.min(ttl_ms, end_ms - now_ms)
local left = redis.call('PTTL', lock)
if wanted <= left then return left end
redis.call('PEXPIRE', lock, wanted)
return wanted
