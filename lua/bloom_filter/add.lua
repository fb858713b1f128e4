-- Set the bits of one id, if the filter is there.
--
-- KEYS[1]  filter  string, bitmap; the bit at ARGV[1] says that it is whole
-- ARGV[1]  mark    place of that bit
-- ARGV[2]  places  of the bits to set, apart by spaces
--
-- Returns  1 added, 0 there is no filter
-- Atomic   no bit is set in a filter that just ended; a rest of one would deny all others
-- Source   https://redis.io/docs/latest/commands/setbit/

local filter = KEYS[1]
local mark, places = ARGV[1], ARGV[2]

if redis.call('GETBIT', filter, mark) == 0 then return 0 end

for place in string.gmatch(places, '%d+') do
  redis.call('SETBIT', filter, place, 1)
end
return 1
