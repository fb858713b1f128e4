-- Put the new value in place of an older one, and void the lease of whoever loads.
--
-- KEYS[1]  value    string, a JSON object with a number `version`, TTL = ARGV[3]
-- KEYS[2]  lease    string, deleted by every write to the row
-- ARGV[1]  version  of the new value; the database raises it with each write
-- ARGV[2]  payload  the new value
-- ARGV[3]  ttl_ms   ms until it expires
--
-- Returns  1 stored, 0 a value as new stays, -1 none to compare with: nothing stored
-- Atomic   compare and store are one step; of two writers the newer value stays
-- Source   https://www.usenix.org/conference/nsdi13/technical-sessions/presentation/nishtala

local value, lease = KEYS[1], KEYS[2]
local version, payload, ttl_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

redis.call('DEL', lease)
local cached = redis.call('GET', value)
if not cached then return -1 end

local readable, row = pcall(cjson.decode, cached)
local known = readable and type(row) == 'table' and tonumber(row.version)
if not known then
  redis.call('DEL', value)
  return -1
end
if known >= version then return 0 end

redis.call('SET', value, payload, 'PX', ttl_ms)
return 1
