#!lua flags=allow-oom
-- PURPOSE    give back a lock of game services of which its asker has not heard: what she asked comes to nothing, also
--            where it arrives after this, unless as many others have given up on this lock since as are remembered
-- KEYS       KEYS[1] the lock, as in lock_acquire.lua; and gone: the last askers that have given up, 32 hex each
-- ARGV       ARGV[1] owner in 32 hex, ARGV[2] for how long a token is remembered after the end, in ms,
--            ARGV[3] how many that have given up are remembered
-- RETURNS    'released' or 'lost': it is not hers, or not any more
-- WHY ATOMIC it may come to her between the look and the write

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lock = call('HMGET', KEYS[1], 'owner', 'until', 'gone')
local is_hers, gone = lock[1] == ARGV[1] and tonumber(lock[2]) > now, lock[3] or ''
if is_hers then call('HDEL', KEYS[1], 'owner', 'until', 'ttl') end
if not string.find(gone, ARGV[1], 1, true) then
  call('HSET', KEYS[1], 'gone', string.sub(gone .. ARGV[1], -32 * ARGV[3]))
end
-- Who has it keeps it for as long as she has.
if is_hers or call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then call('PEXPIRE', KEYS[1], ARGV[2]) end
return is_hers and 'released' or 'lost'
