#!lua
-- PURPOSE    forget messages that a player's client has seen, or all that wait for her
-- KEYS       KEYS[1] the shard's meta, KEYS[2] the player's queue
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] generation in 16 hex, ARGV[4] 'all' or 'these', then their ids in 32 hex
-- RETURNS    'removed' or 'fenced'
-- WHY ATOMIC only the shard's holder may write

local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[1] or meta[3] ~= ARGV[3] then return 'fenced' end

if ARGV[4] == 'all' then
  call('DEL', KEYS[2])
  return 'removed'
end
local seen = {}
for i = 5, #ARGV do seen[ARGV[i]] = true end
for _, message in ipairs(call('LRANGE', KEYS[2], 0, -1)) do
  if seen[string.sub(message, 1, 32)] then call('LREM', KEYS[2], 1, message) end
end
return 'removed'
