-- Let the next made-up visitors come, one by one, and note how the counts go.
--
-- KEYS[1]  hll     hyperloglog, TTL = ARGV[4] from the first visitor
-- KEYS[2]  exact   set, the same TTL
-- KEYS[3]  curve   list of "visitors estimate ones", a point every thousand, same TTL
-- ARGV[1]  seed    makes the visitors of this run others than those of the last
-- ARGV[2]  batch   visitors to add at most
-- ARGV[3]  size    visitors at which it ends
-- ARGV[4]  ttl_ms  ms until the keys expire
--
-- Returns  the curve so far; ones = how often PFADD has answered 1
-- Atomic   two who simulate at once do not overlap: each goes on where the other ended
-- Source   https://redis.io/docs/latest/commands/pfadd/

local hll, exact, curve = KEYS[1], KEYS[2], KEYS[3]
local seed, batch, size, ttl_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local there = redis.call('SCARD', exact)
local ones = tonumber(string.match(redis.call('LINDEX', curve, -1) or '0', '%d+$'))
local last = math.min(there + batch, size)
for n = there + 1, last do
  local visitor = seed .. '-' .. n
  ones = ones + redis.call('PFADD', hll, visitor)
  redis.call('SADD', exact, visitor)
  if n % 1000 == 0 or n == last then
    redis.call('RPUSH', curve, n .. ' ' .. redis.call('PFCOUNT', hll) .. ' ' .. ones)
  end
end
redis.call('PEXPIRE', hll, ttl_ms, 'NX')
redis.call('PEXPIRE', exact, ttl_ms, 'NX')
redis.call('PEXPIRE', curve, ttl_ms, 'NX')
return redis.call('LRANGE', curve, 0, -1)
