-- Add the next players of a made-up crowd, up to a size.
--
-- KEYS[1]  board   zset, TTL = ARGV[3] from its first player
-- ARGV[1]  batch   players to add at most
-- ARGV[2]  size    players at which it is full
-- ARGV[3]  ttl_ms  ms until it expires
--
-- Returns  how many players there are
-- Atomic   two who fill at once do not overlap: each goes on where the other ended
-- Source   https://redis.io/docs/latest/commands/zadd/

local board = KEYS[1]
local batch, size, ttl_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local there = redis.call('ZCARD', board)
local last = math.min(there + batch, size)
if last <= there then return there end

for first = there + 1, last, 50 do -- small writes: a server that replays them can answer
  local players = {}
  for n = first, math.min(first + 49, last) do
    players[#players + 1] = n * 7919 % 100003 -- spread, and about ten players a score
    players[#players + 1] = string.format('player-%07d', n)
  end
  redis.call('ZADD', board, unpack(players))
end
redis.call('PEXPIRE', board, ttl_ms, 'NX')
return last
