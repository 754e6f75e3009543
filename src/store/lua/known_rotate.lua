#!lua flags=allow-oom
-- PURPOSE    begin a new filter of the players ever seen in a shard; the present one stays as the old one until the next time
-- KEYS       KEYS[1] the shard's meta, KEYS[2] the filter, KEYS[3] the old one
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] generation in 16 hex, ARGV[4] how old the present one must be (ms),
--            ARGV[5] the new one: a bitmap with whom must be in it from the start
-- RETURNS    'rotated', 'young' (nothing was changed, or it counts from now on) or 'fenced'
-- WHY ATOMIC only the shard's holder may write, and a call that comes twice must not forget the one that was just begun
-- It takes no more memory than the old one frees, and the mark is small: hence allow-oom.

local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen', 'known_at')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[1] or meta[3] ~= ARGV[3] then return 'fenced' end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = tonumber(meta[4])
if since and now - since < tonumber(ARGV[4]) then return 'young' end
call('HSET', KEYS[1], 'known_at', string.format('%.0f', now))
-- Of one that nobody has counted it is not known how old it is: it may hold whoever was here at any time.
if not since then return 'young' end
if call('EXISTS', KEYS[2]) == 1 then call('RENAME', KEYS[2], KEYS[3]) else call('DEL', KEYS[3]) end
call('SET', KEYS[2], ARGV[5])
return 'rotated'
