#!lua flags=no-writes
-- PURPOSE    see who holds a shard, without asking for it
-- KEYS       KEYS[1] the shard's meta
-- ARGV       none
-- RETURNS    {holder, ms that its lease still runs} or {} while nobody holds it
-- WHY ATOMIC the lease's end means something only beside the clock that set it

local meta = redis.call('HMGET', KEYS[1], 'holder', 'until')
if not meta[1] then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {meta[1], string.format('%.0f', math.max(tonumber(meta[2]) - now, 0))}
