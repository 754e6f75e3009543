#!lua
-- PURPOSE    write a blob of a player, in the place of what the caller says and within her quota
-- KEYS       KEYS[1] the sizes of her blobs, a hash by name; KEYS[2] the blob: its tag in 32 hex, what it is, the content
-- ARGV       ARGV[1] its name, ARGV[2] all of it, ARGV[3] its content's size, ARGV[4] the tags of which one must be stored and
--            ARGV[5] those of which none may be ('' for no matter, '*' for any, else 32 hex each with commas between),
--            ARGV[6] most bytes and ARGV[7] most blobs of a player
-- RETURNS    {'made'}, {'replaced'}, {'unmet', the stored tag or ''} or {'full', bytes, count that there would be}
-- WHY ATOMIC of two writers who saw the same one must lose; and both would find the last place

local call = redis.call
local stored = call('GETRANGE', KEYS[2], 0, 31)
local function names(tags)
  return stored ~= '' and (tags == '*' or string.find(tags, stored, 1, true) ~= nil)
end
if ARGV[4] ~= '' and not names(ARGV[4]) or ARGV[5] ~= '' and names(ARGV[5]) then return {'unmet', stored} end

local size = tonumber(ARGV[3])
local bytes, count, before = size, 1, nil
local sizes = call('HGETALL', KEYS[1])
for i = 1, #sizes, 2 do
  if sizes[i] == ARGV[1] then
    before = tonumber(sizes[i + 1])
  else
    bytes, count = bytes + sizes[i + 1], count + 1
  end
end
-- What shrinks, or stays as large, is always taken.
if not before and count > tonumber(ARGV[7]) or bytes > tonumber(ARGV[6]) and not (before and size <= before) then
  return {'full', string.format('%.0f', bytes), count}
end
call('SET', KEYS[2], ARGV[2])
call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {stored == '' and 'made' or 'replaced'}
