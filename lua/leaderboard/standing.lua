-- Find a player's rank, and who stands around it.
--
-- KEYS[1]  board   zset, member = player
-- ARGV[1]  player  member
-- ARGV[2]  reach   neighbours wanted on each side
--
-- Returns  {rank from 0, first rank of the window, window} or {} without the player
-- Atomic   rank and window are of the same moment; nobody overtakes in between
-- Source   https://redis.io/docs/latest/commands/zrevrank/

local board = KEYS[1]
local player, reach = ARGV[1], tonumber(ARGV[2])

local rank = redis.call('ZREVRANK', board, player)
if not rank then return {} end

local first = math.max(rank - reach, 0)
return {rank, first, redis.call('ZRANGE', board, first, rank + reach, 'REV', 'WITHSCORES')}
