#!lua
-- PURPOSE    take a lock of game services that is free or has run out, under a token above all before
-- KEYS       KEYS[1] the lock, a hash: token, and while it is held owner, until (Unix ms) and ttl; and gone, as in
--            lock_cancel.lua
-- ARGV       ARGV[1] owner in 32 hex, ARGV[2] ttl in ms, ARGV[3] for how long a token is remembered after the end, in ms
-- RETURNS    {'acquired', token} or {'held', ms that remain}
-- WHY ATOMIC two askers would both find it free
-- A token is the clock in microseconds, so that it rises also where all data were lost, or one more than the last.

local call, whole = redis.call, function(number) return string.format('%.0f', number) end
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now, ttl = math.floor(now_us / 1000), tonumber(ARGV[2])
local lock = call('HMGET', KEYS[1], 'token', 'owner', 'until', 'ttl', 'gone')
local token, owner = lock[1], lock[2]
-- She has given up, and this comes late: it is nobody's.
if lock[5] and string.find(lock[5], ARGV[1], 1, true) then return {'held', 0} end

if owner then
  -- One that seems to run longer than it was asked for is the work of a clock that was set back.
  local asked = tonumber(lock[4])
  local remaining = math.min(lock[3] - now, asked)
  if remaining > 0 and owner ~= ARGV[1] then
    if lock[3] - now > remaining then
      call('HSET', KEYS[1], 'until', whole(now + asked))
      call('PEXPIRE', KEYS[1], whole(asked + ARGV[3]))
    end
    return {'held', remaining}
  end
  if remaining <= 0 then owner = false end
end
if not owner then
  token = whole(math.max(now_us, token and token + 1 or 0))
end
call('HSET', KEYS[1], 'token', token, 'owner', ARGV[1], 'until', whole(now + ttl), 'ttl', ARGV[2])
call('PEXPIRE', KEYS[1], whole(ttl + ARGV[3]))
return {'acquired', token}
