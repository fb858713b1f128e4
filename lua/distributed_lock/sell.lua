-- Sell one item if there is one: what needs no lock at all.
--
-- KEYS[1]  stock  string, items left
--
-- Returns  1 if it was sold, 0 if there was none left
-- Atomic   look and sale are one step; no two buyers get the same item
-- Source   https://redis.io/docs/latest/develop/programmability/eval-intro/

local stock = KEYS[1]

if tonumber(redis.call('GET', stock) or 0) < 1 then return 0 end
redis.call('DECR', stock)
return 1
