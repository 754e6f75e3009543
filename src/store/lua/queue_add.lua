#!lua
-- PURPOSE    keep a message for a player until her client has seen it
-- KEYS       KEYS[1] the shard's meta, KEYS[2] the player's queue
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] generation in 16 hex, ARGV[4] how many may wait,
--            ARGV[5] how many bytes of bodies may, ARGV[6] the message: id in 32 hex, when it runs out in 16 digits (Unix ms), body
-- RETURNS    'added', 'repeat' (its id waits already), 'full' (of either) or 'fenced'
-- WHY ATOMIC two senders would both find the last place; and only the shard's holder may write

local call, sub = redis.call, string.sub
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen')
if meta[1] ~= ARGV[2] or meta[2] ~= ARGV[1] or meta[3] ~= ARGV[3] then return 'fenced' end

local time = call('TIME')
local now = string.format('%016.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local waiting, bytes, run_out, last = 0, #ARGV[6] - 48, {}, sub(ARGV[6], 33, 48)
for _, message in ipairs(call('LRANGE', KEYS[2], 0, -1)) do
  local ends = sub(message, 33, 48)
  if ends <= now then run_out[#run_out + 1] = message
  elseif sub(message, 1, 32) == sub(ARGV[6], 1, 32) then return 'repeat'
  else
    waiting, bytes = waiting + 1, bytes + #message - 48
    if ends > last then last = ends end
  end
end
if waiting >= tonumber(ARGV[4]) or bytes > tonumber(ARGV[5]) then return 'full' end
for _, message in ipairs(run_out) do call('LREM', KEYS[2], 1, message) end
call('RPUSH', KEYS[2], ARGV[6])
call('PEXPIREAT', KEYS[2], string.format('%.0f', tonumber(last)))
return 'added'
