-- Enter a session into its user's list, and name those that are over the limit.
--
-- KEYS[1]  sessions     sorted set {member: when it ends in any case, ms}
-- ARGV[1]  member       the session to enter
-- ARGV[2]  absolute_ms  ms after which it ends in any case
-- ARGV[3]  most         sessions that a user may have
--
-- Returns  {member, ...} of the oldest over the limit, which the caller ends
-- Atomic   pruning, entering and counting are one step; two sign-ins both count
-- Source   https://redis.io/docs/latest/commands/zremrangebyscore/

local sessions, member = KEYS[1], ARGV[1]
local absolute_ms, most = tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', sessions, '-inf', now_ms)
redis.call('ZADD', sessions, now_ms + absolute_ms, member)
redis.call('PEXPIRE', sessions, absolute_ms)
return redis.call('ZRANGE', sessions, 0, -most - 1)
