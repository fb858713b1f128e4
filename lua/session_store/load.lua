-- Answer a session, and move its idle end if enough of it has passed.
--
-- KEYS[1]  session     hash {ends_ms, ...}, TTL = idle time, never past ends_ms
-- ARGV[1]  idle_ms     ms without a request after which it ends
-- ARGV[2]  refresh_ms  ms that pass before the TTL is worth another write
--
-- Returns  {field, value, ...}, empty where there is no such session
-- Atomic   reading and touching are one step; an ended session is not touched back
-- Source   https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html

local session = KEYS[1]
local idle_ms, refresh_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local ends_ms = tonumber(redis.call('HGET', session, 'ends_ms') or '')
if not ends_ms then return {} end

if redis.call('PTTL', session) < idle_ms - refresh_ms then
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('PEXPIREAT', session, math.min(now_ms + idle_ms, ends_ms))
end
return redis.call('HGETALL', session)
