#!lua flags=allow-oom
-- PURPOSE    extend a lease; grant it again under the same epoch if it ran out and nobody came
-- KEYS       KEYS[1] the shard's meta
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] ttl in ms
-- RETURNS    {'renewed' or 'regranted', f, generation}, {'fenced', stored epoch} or {'rolled_back'}
-- WHY ATOMIC another owner could be granted the shard between the look and the write
-- A full Redis must not cost the leases, or the hot sessions would go with them: hence allow-oom.

local owner, epoch, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until', 'f', 'gen')
local stored = tonumber(meta[1] or 0)
if stored < epoch then
  return {'rolled_back'}
end
if stored > epoch or meta[2] ~= owner then
  return {'fenced', meta[1]}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = 'regranted'
if tonumber(meta[3]) > now then
  answer = 'renewed'
end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ttl))
return {answer, meta[4], meta[5]}
