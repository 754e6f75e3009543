#!lua flags=allow-oom
-- PURPOSE    give a lease back, only if it is ours; the next owner need not wait for it to run out
-- KEYS       KEYS[1] the shard's meta
-- ARGV       ARGV[1] owner, ARGV[2] epoch
-- RETURNS    'released', 'run_out' or 'not_mine'
-- WHY ATOMIC another owner could be granted the shard between the look and the write
-- Without a holder even a late renewal or batch of this owner finds the door closed.

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[1] then
  return 'not_mine'
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = 'run_out'
if tonumber(meta[3]) > now then
  answer = 'released'
end
redis.call('HDEL', KEYS[1], 'holder')
redis.call('HSET', KEYS[1], 'until', '0')
return answer
