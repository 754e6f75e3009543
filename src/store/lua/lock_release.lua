#!lua flags=allow-oom
-- PURPOSE    give a lock of game services back; its token stays, so that the next one is higher
-- KEYS       KEYS[1] the lock, as in lock_acquire.lua
-- ARGV       ARGV[1] owner in 32 hex, ARGV[2] for how long a token is remembered after the end, in ms
-- RETURNS    'released' or 'lost': it is not hers, or not any more
-- WHY ATOMIC it may run out, and be taken, between the look and the write

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lock = call('HMGET', KEYS[1], 'owner', 'until')
if lock[1] ~= ARGV[1] or tonumber(lock[2]) <= now then return 'lost' end
call('HDEL', KEYS[1], 'owner', 'until', 'ttl')
call('PEXPIRE', KEYS[1], ARGV[2])
return 'released'
