-- Move an amount from one balance to another, if the giver has it.
--
-- KEYS[1]  giver   string, a whole number, TTL = ARGV[2]
-- KEYS[2]  taker   string, a whole number, TTL = ARGV[2]
-- ARGV[1]  amount  above 0
-- ARGV[2]  ttl_ms  ms without a transfer
--
-- Returns  {1, left} if moved, {0, left} if the giver has too little
-- Atomic   nothing comes between the look at the balance and the two writes
-- Source   https://redis.io/docs/latest/develop/programmability/eval-intro/

local giver, taker = KEYS[1], KEYS[2]
local amount, ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local left = tonumber(redis.call('GET', giver) or 0)
if left < amount then return {0, left} end
redis.call('INCRBY', taker, amount) -- first, because it may fail, and nothing is rolled back
left = redis.call('DECRBY', giver, amount)
redis.call('PEXPIRE', giver, ttl_ms)
redis.call('PEXPIRE', taker, ttl_ms)
return {1, left}
