-- Put a dead letter back into its stream, as a new entry that knows its first id.
--
-- KEYS[1]  dead     stream
-- KEYS[2]  stream   stream
-- KEYS[3]  outcome  string "dead", then the new id: it is open again. TTL = ARGV[2]
-- ARGV[1]  id       of the dead letter
-- ARGV[2]  ttl_ms   ms until the outcome expires
--
-- Returns  the id of the new entry, false if there is no such dead letter
-- Atomic   of two who requeue it, one does; it is in one stream or the other
-- Source   https://redis.io/docs/latest/develop/data-types/streams/

local dead, stream, outcome = KEYS[1], KEYS[2], KEYS[3]
local id, ttl_ms = ARGV[1], ARGV[2]

local letter = redis.call('XRANGE', dead, id, id)[1]
if not letter then return false end
redis.call('XDEL', dead, id)

local entry = {}
for i = 1, #letter[2], 2 do
  local field = letter[2][i]
  if field ~= 'group' and field ~= 'reason' and field ~= 'deliveries' then
    entry[#entry + 1], entry[#entry + 2] = field, letter[2][i + 1]
  end
end
local added = redis.call('XADD', stream, '*', unpack(entry))
redis.call('SET', outcome, added, 'PX', ttl_ms)
return added
