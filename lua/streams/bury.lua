-- Move an entry that nobody can handle to the dead letters, with the reason.
--
-- KEYS[1]  stream   stream
-- KEYS[2]  dead     stream of {the entry's fields, origin, group, reason, deliveries}
-- KEYS[3]  outcome  string "dead", TTL = ARGV[6]
-- ARGV[1]  group    consumer group
-- ARGV[2]  id       of the entry
-- ARGV[3]  origin   id under which it was added first
-- ARGV[4]  reason   for people
-- ARGV[5]  times    how often it was delivered
-- ARGV[6]  ttl_ms   ms until the outcome expires
-- ARGV[7]  longest  dead letters that are kept
--
-- Returns  1 moved, 0 it was no longer pending, or is done, or gone
-- Atomic   copy and acknowledgement are one step: it is in one stream or the other
-- Source   https://redis.io/docs/latest/commands/xack/

local stream, dead, outcome = KEYS[1], KEYS[2], KEYS[3]
local group, id, origin, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local times, ttl_ms, longest = ARGV[5], ARGV[6], ARGV[7]

if redis.call('XACK', stream, group, id) == 0 then return 0 end
local entry = redis.call('XRANGE', stream, id, id)[1]
local known = redis.call('GET', outcome)
local is_done = known and known ~= 'dead' and not known:find('^%d+%-%d+$')
if not entry or is_done then return 0 end

local copy = {'MAXLEN', '=', longest, '*', 'origin', origin, 'group', group}
for _, word in ipairs({'reason', reason, 'deliveries', times}) do copy[#copy + 1] = word end
for i = 1, #entry[2], 2 do
  if entry[2][i] ~= 'origin' then
    copy[#copy + 1], copy[#copy + 2] = entry[2][i], entry[2][i + 1]
  end
end
redis.call('XADD', dead, unpack(copy))
redis.call('SET', outcome, 'dead', 'PX', ttl_ms)
return 1
