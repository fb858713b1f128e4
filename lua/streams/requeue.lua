-- Put a dead letter back into its stream, as a new entry that knows its first id.
--
-- KEYS[1]  dead     stream
-- KEYS[2]  stream   stream
-- KEYS[3]  outcome  string "dead", deleted: it is open again
-- ARGV[1]  id       of the dead letter
--
-- Returns  the id of the new entry, false if there is no such dead letter
-- Atomic   of two who requeue it, one does; it is in one stream or the other
-- Source   https://redis.io/docs/latest/develop/data-types/streams/

local dead, stream, outcome = KEYS[1], KEYS[2], KEYS[3]
local id = ARGV[1]

local letter = redis.call('XRANGE', dead, id, id)[1]
if not letter then return false end
redis.call('XDEL', dead, id)
redis.call('DEL', outcome)

local entry = {}
for i = 1, #letter[2], 2 do
  local field = letter[2][i]
  if field ~= 'group' and field ~= 'reason' and field ~= 'deliveries' then
    entry[#entry + 1], entry[#entry + 2] = field, letter[2][i + 1]
  end
end
return redis.call('XADD', stream, '*', unpack(entry))
