-- Write the changed fields of a session that still exists.
--
-- KEYS[1]  session  hash {ends_ms, ...}; its TTL stays as it is
-- ARGV[1]  changes  JSON object of texts; null removes the field
--
-- Returns  1 written, 0 refused because the session ended
-- Atomic   check and writes are one step; no slow request undoes a sign-out
-- Source   https://redis.io/docs/latest/commands/hset/

local session, changes = KEYS[1], cjson.decode(ARGV[1])

if redis.call('HEXISTS', session, 'ends_ms') == 0 then return 0 end

for field, text in pairs(changes) do
  if text == cjson.null then
    redis.call('HDEL', session, field)
  else
    redis.call('HSET', session, field, text)
  end
end
return 1
