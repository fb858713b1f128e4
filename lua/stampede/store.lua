-- Store a loaded value and give the lock back, unless the lock was lost or taken away.
--
-- KEYS[1]  value    string, TTL = ARGV[3]
-- KEYS[2]  lock     string, the loader's token, deleted by every write to the row
-- KEYS[3]  wake     list, one entry at most, TTL = ARGV[4]
-- ARGV[1]  token    the loader's
-- ARGV[2]  payload  the value
-- ARGV[3]  ttl_ms   ms until the value expires
-- ARGV[4]  wake_ms  ms that a wake-up stays for somebody about to wait
--
-- Returns  1 stored, 0 refused because the lock is another's, or nobody's
-- Atomic   check, store and release are one step; a write before it wins, one after it deletes
-- Source   https://www.usenix.org/conference/nsdi13/technical-sessions/presentation/nishtala

local value, lock, wake = KEYS[1], KEYS[2], KEYS[3]
local token, payload = ARGV[1], ARGV[2]
local ttl_ms, wake_ms = tonumber(ARGV[3]), tonumber(ARGV[4])

if redis.call('GET', lock) ~= token then return 0 end

redis.call('SET', value, payload, 'PX', ttl_ms)
redis.call('DEL', lock)
redis.call('RPUSH', wake, 1)
redis.call('PEXPIRE', wake, wake_ms)
return 1
