-- Answer the cached value, or the lease that everyone who misses now shares.
--
-- KEYS[1]  value     string, the cached copy
-- KEYS[2]  lease     string, TTL = ARGV[2]
-- ARGV[1]  token     random, becomes the lease if there is none
-- ARGV[2]  lease_ms  ms a loader may take before its store is refused
--
-- Returns  the value on a hit, {lease} on a miss
-- Atomic   the miss and its lease are one step; no write fits between them
-- Source   https://www.usenix.org/conference/nsdi13/technical-sessions/presentation/nishtala

local value, lease = KEYS[1], KEYS[2]
local token, lease_ms = ARGV[1], tonumber(ARGV[2])

local cached = redis.call('GET', value)
if cached then return cached end

local held = redis.call('GET', lease)
if held then return {held} end

redis.call('SET', lease, token, 'PX', lease_ms)
return {token}
