-- Drop the oldest entries, but none that a group has still to read or acknowledge.
--
-- KEYS[1]  stream  stream
-- ARGV[1]  keep    newest entries that stay in any case
--
-- Returns  how many were dropped
-- Atomic   nothing is delivered between the look at the groups and the trim
-- Source   https://redis.io/docs/latest/commands/xtrim/

local stream = KEYS[1]
local keep = tonumber(ARGV[1])

if redis.call('XLEN', stream) <= keep then return 0 end
local groups = redis.call('XINFO', 'GROUPS', stream)
if #groups == 0 then return 0 end

local function earlier(a, b)
  local a_ms, a_n = a:match('(%d+)-(%d+)')
  local b_ms, b_n = b:match('(%d+)-(%d+)')
  if a_ms == b_ms then return tonumber(a_n) < tonumber(b_n) end
  return tonumber(a_ms) < tonumber(b_ms)
end

local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', keep)
local floor = newest[#newest][1]
for _, facts in ipairs(groups) do
  local group = {}
  for i = 1, #facts, 2 do group[facts[i]] = facts[i + 1] end
  local first = redis.call('XPENDING', stream, group.name)[2] or group['last-delivered-id']
  if earlier(first, floor) then floor = first end
end
return redis.call('XTRIM', stream, 'MINID', '=', floor)
