-- Acknowledge an entry and put its effect into effect: both, or neither, and once.
--
-- KEYS[1]  stream   stream
-- KEYS[2]  outcome  string "text ms", TTL = ARGV[4]: the entry is done in this group
-- KEYS[3]  totals   hash, the effect, TTL = ARGV[4]
-- ARGV[1]  group    consumer group
-- ARGV[2]  id       of the entry
-- ARGV[3]  text     what is kept of it
-- ARGV[4]  ttl_ms   ms until outcome and totals expire
-- ARGV[5]  changes  JSON object: what is added to which field of totals
--
-- Returns  1 done, 0 it was another's by now, or done before: nothing was changed
-- Atomic   acknowledgement, dedupe and effect are one step: a kill falls before or after
-- Source   https://redis.io/docs/latest/commands/xack/

local stream, outcome, totals = KEYS[1], KEYS[2], KEYS[3]
local group, id, text, ttl_ms, changes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('XACK', stream, group, id) == 0 then return 0 end

local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local known = redis.call('GET', outcome)
if known and not known:find('^%d+%-%d+$') then return 0 end -- an id: requeued, and open
redis.call('SET', outcome, text .. ' ' .. now_ms, 'PX', ttl_ms)

for field, amount in pairs(cjson.decode(changes)) do
  redis.call('HINCRBY', totals, field, string.format('%.0f', amount))
end
redis.call('PEXPIRE', totals, ttl_ms)
return 1
