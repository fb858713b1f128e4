-- Count what a fixed window is about to say to a client.
--
-- KEYS[1]  window    string, units asked for in this window, without this request
-- KEYS[2]  tally     hash {admitted, rejected}, TTL = ARGV[3]
-- ARGV[1]  limit     units a window
-- ARGV[2]  cost      units of this request
-- ARGV[3]  tally_ms  ms until the tally expires
--
-- Returns  the total of that kind
-- Atomic   runs first in the MULTI that decides, so no decision goes uncounted
-- Source   https://redis.io/docs/latest/commands/hincrby/

local window, tally = KEYS[1], KEYS[2]
local limit, cost, tally_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local asked = (redis.call('GET', window) or 0) + cost
local total = redis.call('HINCRBY', tally, asked <= limit and 'admitted' or 'rejected', 1)
redis.call('PEXPIRE', tally, tally_ms)
return total
