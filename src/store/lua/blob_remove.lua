#!lua flags=allow-oom
-- PURPOSE    remove a blob of a player, if it is what the caller says
-- KEYS       KEYS[1] the sizes of her blobs, KEYS[2] the blob, both as in blob_put.lua
-- ARGV       ARGV[1] its name, ARGV[2] the tags of which one must be stored and ARGV[3] those of which none may be, as in
--            blob_put.lua
-- RETURNS    {'removed'}, {'missing'} or {'unmet', the stored tag}
-- WHY ATOMIC it may be written between the look and the end, and its size must go with it
-- A full Redis must let go of what fills it: hence allow-oom.

local call = redis.call
local stored = call('GETRANGE', KEYS[2], 0, 31)
if stored == '' then
  call('HDEL', KEYS[1], ARGV[1])
  return {'missing'}
end
local function names(tags)
  return tags == '*' or string.find(tags, stored, 1, true) ~= nil
end
if ARGV[2] ~= '' and not names(ARGV[2]) or ARGV[3] ~= '' and names(ARGV[3]) then return {'unmet', stored} end
call('UNLINK', KEYS[2])
call('HDEL', KEYS[1], ARGV[1])
return {'removed'}
