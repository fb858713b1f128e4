-- Keep a message in a capped stream, and tell it to all who listen.
--
-- KEYS[1]  stream   stream of {message}, TTL = ARGV[3]; its name is the channel too
-- ARGV[1]  message  bytes
-- ARGV[2]  longest  entries the stream keeps
-- ARGV[3]  ttl_ms   ms after this message until the stream expires
--
-- Returns  {id, receivers on this node}; listeners hear "<id> <id before> <message>"
-- Atomic   ids grow in the order in which listeners hear them
-- Source   https://redis.io/docs/latest/develop/pubsub/

local stream = KEYS[1]
local message, longest, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local before = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local id = redis.call('XADD', stream, 'MAXLEN', '=', longest, '*', 'message', message)
redis.call('PEXPIRE', stream, ttl_ms)
local told = table.concat({id, before and before[1] or '0-0', message}, ' ')
return {id, redis.call('PUBLISH', stream, told)}
