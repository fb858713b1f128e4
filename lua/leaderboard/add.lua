-- Add points to a player, once per operation, and answer where that puts them.
--
-- KEYS[1]  board      zset, one week's scores, TTL set by its first score
-- KEYS[2]  operation  string "request score rank", TTL = ARGV[4]
-- KEYS[3]  last       zset, the board of the week before
-- KEYS[4]  ended      zset, the season's ended weeks added up
-- ARGV[1]  player     member
-- ARGV[2]  points     0 to 2^53
-- ARGV[3]  request    what the operation id stands for, without spaces at its ends
-- ARGV[4]  op_ttl_ms  ms an operation is remembered
-- ARGV[5]  closes_ms  time at which the week ends
-- ARGV[6]  board_end  time at which the board expires, ms
-- ARGV[7]  ended_end  time at which the ended weeks expire, ms
-- ARGV[8]  reach      neighbours wanted on each side
-- ARGV[9]  top        entries wanted from the top
--
-- Returns  {kept, added 0|1, first, window, top}, {'closed'} or {'too large'}
-- Atomic   a repeated operation finds the first one's answer; no score is lost or doubled
-- Source   https://redis.io/docs/latest/develop/data-types/sorted-sets/

local board, operation, last, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local player, points, request, op_ttl_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local closes_ms, board_end, ended_end = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local reach, top = tonumber(ARGV[8]), tonumber(ARGV[9])

local kept, added, rank = redis.call('GET', operation), 0, nil
if not kept then
  if redis.call('TIME')[1] * 1000 >= closes_ms then return {'closed'} end
  local before = tonumber(redis.call('ZSCORE', board, player) or 0)
  if points > 2 ^ 53 - before then return {'too large'} end
  local score = redis.call('ZINCRBY', board, points, player)
  if redis.call('PEXPIREAT', board, board_end, 'NX') == 1 then -- the week's first score
    redis.call('ZUNIONSTORE', ended, 2, ended, last)
    redis.call('PEXPIREAT', ended, ended_end)
  end
  rank = redis.call('ZREVRANK', board, player)
  kept, added = request .. ' ' .. score .. ' ' .. rank + 1, 1
  redis.call('SET', operation, kept, 'PX', op_ttl_ms)
end
rank = rank or redis.call('ZREVRANK', board, player) or 0
local first = math.max(rank - reach, 0)
return {kept, added, first, redis.call('ZRANGE', board, first, rank + reach, 'REV', 'WITHSCORES'),
  redis.call('ZRANGE', board, 0, top - 1, 'REV', 'WITHSCORES')}
