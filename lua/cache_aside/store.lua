-- Store a loaded value, unless a write took the lease away meanwhile.
--
-- KEYS[1]  value    string, TTL = ARGV[3]
-- KEYS[2]  lease    string, deleted by every write to the row
-- ARGV[1]  token    the lease this loader was given
-- ARGV[2]  payload  the value
-- ARGV[3]  ttl_ms   ms until the value expires
--
-- Returns  1 stored, 0 refused because the lease is gone
-- Atomic   check and store are one step; a write before it wins, one after it deletes
-- Source   https://www.usenix.org/conference/nsdi13/technical-sessions/presentation/nishtala

local value, lease = KEYS[1], KEYS[2]
local token, payload, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('GET', lease) ~= token then return 0 end

redis.call('SET', value, payload, 'PX', ttl_ms)
redis.call('DEL', lease)
return 1
