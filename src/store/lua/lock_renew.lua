#!lua flags=allow-oom
-- PURPOSE    give the holder of a lock of game services more time, from now on
-- KEYS       KEYS[1] the lock, as in lock_acquire.lua
-- ARGV       ARGV[1] owner in 32 hex, ARGV[2] ttl in ms, ARGV[3] for how long a token is remembered after the end, in ms
-- RETURNS    {'renewed', token} or {'lost'}: it is not hers, or not any more
-- WHY ATOMIC it may run out, and be taken, between the look and the write
-- A full Redis must not take locks from those who hold them: hence allow-oom.

local call, whole = redis.call, function(number) return string.format('%.0f', number) end
local time = call('TIME')
local now, ttl = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])
local lock = call('HMGET', KEYS[1], 'token', 'owner', 'until')
if lock[2] ~= ARGV[1] or tonumber(lock[3]) <= now then return {'lost'} end
call('HSET', KEYS[1], 'until', whole(now + ttl), 'ttl', ARGV[2])
call('PEXPIRE', KEYS[1], whole(ttl + ARGV[3]))
return {'renewed', lock[1]}
