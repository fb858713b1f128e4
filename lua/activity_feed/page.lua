-- Answer the entries that are older than one of them.
--
-- KEYS[1]  feed   list of entries, the newest first
-- ARGV[1]  after  the last entry that was seen; empty: begin with the newest
-- ARGV[2]  count  entries wanted
--
-- Returns  {newer entries, entries kept, entries}, or {-1, entries kept, {}}: it is gone
-- Atomic   the place and what follows it are of one moment; no push moves them apart
-- Source   https://redis.io/docs/latest/commands/lpos/

local feed = KEYS[1]
local after, count = ARGV[1], tonumber(ARGV[2])

local kept, first = redis.call('LLEN', feed), 0
if after ~= '' then
  local place = redis.call('LPOS', feed, after)
  if not place then return {-1, kept, {}} end
  first = place + 1
end
return {first, kept, redis.call('LRANGE', feed, first, first + count - 1)}
