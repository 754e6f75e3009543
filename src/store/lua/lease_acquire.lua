#!lua
-- PURPOSE    grant a free or run-out lease of a shard under a new epoch
-- KEYS       KEYS[1] the shard's meta
-- ARGV       ARGV[1] owner, ARGV[2] ttl in ms, ARGV[3] floor: the highest epoch seen,
--            ARGV[4] the generation if there is none yet, 16 hex
-- RETURNS    {'granted' or 'mine', epoch, f, generation, vmax, previous owner or ''},
--            {'held', owner, ms that remain} or {'floor_poisoned'}
-- WHY ATOMIC two askers would both find it free

local DAY_MS = 86400000
local owner, ttl, floor = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if floor > now + DAY_MS then
  return {'floor_poisoned'}
end

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until', 'owner', 'prev', 'f', 'gen', 'vmax')
local epoch, holder, runs_out = tonumber(meta[1] or 0), meta[2], tonumber(meta[3] or 0)
local f, generation, vmax = meta[6] or '0', meta[7] or ARGV[4], meta[8] or '0000000000000000'
local full_term = string.format('%.0f', now + ttl)

if holder == owner and epoch > floor then
  redis.call('HSET', KEYS[1], 'until', full_term)
  return {'mine', string.format('%.0f', epoch), f, generation, vmax, meta[5] or ''}
end

-- A lease that seems to run longer than one ttl is the work of a clock that was set back.
local remaining = math.min(runs_out - now, ttl)
if holder and holder ~= owner and remaining > 0 then
  if runs_out > now + ttl then
    redis.call('HSET', KEYS[1], 'until', full_term)
  end
  return {'held', holder, string.format('%.0f', remaining)}
end

local granted = string.format('%.0f', math.max(epoch, floor, now) + 1)
local previous = ''
if meta[4] and meta[4] ~= owner then
  previous = meta[4]
end
redis.call('HSET', KEYS[1], 'epoch', granted, 'holder', owner, 'until', full_term, 'owner', owner,
  'prev', previous, 'f', f, 'gen', generation, 'vmax', vmax)
return {'granted', granted, f, generation, vmax, previous}
