#!lua
-- PURPOSE    change a counter of game services within its bounds
-- KEYS       KEYS[1] the counter, a decimal number of 64 bits; a change that may come again has a KEYS[2], where it is
--            remembered with what it made of the counter
-- ARGV       ARGV[1] what is added ('0': nothing), ARGV[2] the lowest and ARGV[3] the highest value from which it may be,
--            ARGV[4] ttl in ms of a counter that this makes, or '', ARGV[5] for how many ms a change is remembered
-- RETURNS    {'at' or 'refused', where it stands, ms until it is forgotten (below 0: never)}
-- WHY ATOMIC two callers would both find the last place
-- Numbers are compared as text: as numbers Lua would round them.

local call, sub = redis.call, string.sub

local function less(a, b)
  if a == b then return false end
  local below = sub(a, 1, 1) == '-'
  if below ~= (sub(b, 1, 1) == '-') then return below end
  local shorter = #a < #b
  if #a == #b then shorter = a < b end
  return shorter ~= below
end

local first = KEYS[2] and call('GET', KEYS[2])
if first then return {'at', first, call('PTTL', KEYS[1])} end
local stored = call('GET', KEYS[1])
local value = stored or '0'
if less(value, ARGV[2]) or less(ARGV[3], value) then return {'refused', value, call('PTTL', KEYS[1])} end
if ARGV[1] == '0' then return {'at', value, call('PTTL', KEYS[1])} end

call('INCRBY', KEYS[1], ARGV[1])
if not stored and ARGV[4] ~= '' then call('PEXPIRE', KEYS[1], ARGV[4]) end
value = call('GET', KEYS[1])
if KEYS[2] then call('SET', KEYS[2], value, 'PX', ARGV[5]) end
local left = call('PTTL', KEYS[1])
-- At zero and without an end it is as if it had never been.
if value == '0' and left < 0 then call('DEL', KEYS[1]) end
return {'at', value, left}
