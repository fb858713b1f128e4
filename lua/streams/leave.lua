-- Remove a consumer from its group, unless something is pending for it.
--
-- KEYS[1]  stream    stream
-- ARGV[1]  group     consumer group
-- ARGV[2]  consumer  who leaves
--
-- Returns  1 removed, 0 it has pending entries, which would be lost with it
-- Atomic   nothing is delivered to it between the look and the removal
-- Source   https://redis.io/docs/latest/commands/xgroup-delconsumer/

local stream = KEYS[1]
local group, consumer = ARGV[1], ARGV[2]

if #redis.call('XPENDING', stream, group, '-', '+', 1, consumer) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
return 1
