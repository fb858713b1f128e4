-- Start a session, with both of its ends.
--
-- KEYS[1]  session      hash {ends_ms, ...}, TTL = idle time, never past ends_ms
-- ARGV[1]  fields       JSON object of texts
-- ARGV[2]  idle_ms      ms without a request after which it ends
-- ARGV[3]  absolute_ms  ms after which it ends in any case
--
-- Returns  1 started, 0 refused because the key exists
-- Atomic   fields and TTL are one step; no crash leaves a session without an end
-- Source   https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html

local session, fields = KEYS[1], cjson.decode(ARGV[1])
local idle_ms, absolute_ms = tonumber(ARGV[2]), tonumber(ARGV[3])

if redis.call('EXISTS', session) == 1 then return 0 end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for field, text in pairs(fields) do
  redis.call('HSET', session, field, text)
end
redis.call('HSET', session, 'ends_ms', string.format('%.0f', now_ms + absolute_ms))
redis.call('PEXPIRE', session, math.min(idle_ms, absolute_ms))
return 1
