#!lua flags=allow-oom
-- PURPOSE    begin a new filter of the players ever seen in a shard; the present one stays as the old one until the next time
-- KEYS       KEYS[1] the shard's meta, KEYS[2] the filter, KEYS[3] the old one
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] generation in 16 hex, ARGV[4] for how many ms those are kept at most who
--            come from now on, ARGV[5] the new one: a bitmap with whom must be in it from the start,
--            ARGV[6] a bitmap of all who were seen, for what was lost; '' if nobody knows
-- RETURNS    'rotated', 'young' (it goes on, and ARGV[4] counts from now on if it is longer) or 'fenced'
-- WHY ATOMIC only the shard's holder may write, and a call that comes twice must not forget the one that was just begun
-- It takes no more memory than there was before something was lost, and the mark is small: hence allow-oom.

local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen', 'known_at', 'known_ttl', 'known_ttl_old')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[1] or meta[3] ~= ARGV[3] then return 'fenced' end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since, ttl, old_ttl = tonumber(meta[4]), tonumber(meta[5] or 0), tonumber(meta[6] or 0)
local longest = math.max(ttl, tonumber(ARGV[4]))
local function note(...)
  local fields = {...}
  for i = 2, #fields, 2 do fields[i] = string.format('%.0f', fields[i]) end
  call('HSET', KEYS[1], unpack(fields))
end

-- One that was lost and grew again bit by bit lacks the mark, and whoever is in the old one alone may be in neither.
if call('GETRANGE', KEYS[2], '0', '7') ~= string.rep('\255', 8) then
  call('SET', KEYS[2], ARGV[5])
  if ARGV[6] ~= '' then call('SET', KEYS[3], ARGV[6]) else call('DEL', KEYS[3]) end
  note('known_at', now, 'known_ttl', ARGV[4], 'known_ttl_old', math.max(longest, old_ttl))
  return 'rotated'
end
if ARGV[6] ~= '' and call('EXISTS', KEYS[3]) == 0 then
  call('SET', KEYS[3], ARGV[6])
  old_ttl = math.max(longest, old_ttl)
  note('known_ttl_old', old_ttl)
end
-- Of one that nobody has counted it is not known how old it is: it may hold whoever was here at any time.
if not since or now - since < math.max(old_ttl, tonumber(ARGV[4])) then
  note('known_at', since or now, 'known_ttl', longest)
  return 'young'
end
call('RENAME', KEYS[2], KEYS[3])
call('SET', KEYS[2], ARGV[5])
note('known_at', now, 'known_ttl', ARGV[4], 'known_ttl_old', longest)
return 'rotated'
