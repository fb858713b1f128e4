-- Take over what consumers have left unacknowledged for too long; acknowledge what is gone.
--
-- KEYS[1]  stream    stream
-- ARGV[1]  group     consumer group
-- ARGV[2]  consumer  who takes it
-- ARGV[3]  idle_ms   ms since it was delivered last, at least
-- ARGV[4]  cursor    id to go on from; 0-0 at first
-- ARGV[5]  count     entries at most
--
-- Returns  {next cursor, {{id, fields, taken from, deliveries}, ..}, how many are deleted}
-- Atomic   nobody else can take it in between, and who had it is known
-- Source   https://redis.io/docs/latest/commands/xautoclaim/

local stream = KEYS[1]
local group, consumer, idle_ms, cursor, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local holder = {}
local held = redis.call('XPENDING', stream, group, 'IDLE', idle_ms - 1, cursor, '+', count)
for _, entry in ipairs(held) do holder[entry[1]] = entry[2] end

local reply = redis.call('XAUTOCLAIM', stream, group, consumer, idle_ms, cursor, 'COUNT', count)
local taken = {}
for _, entry in ipairs(reply[2]) do
  local now = redis.call('XPENDING', stream, group, entry[1], entry[1], 1)[1]
  taken[#taken + 1] = {entry[1], entry[2], holder[entry[1]] or '', now[4]}
end
local gone = reply[3]
if #gone > 0 then redis.call('XACK', stream, group, unpack(gone)) end
return {reply[1], taken, #gone}
