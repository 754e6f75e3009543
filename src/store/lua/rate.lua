#!lua
-- PURPOSE    take from a limit that holds for the cluster as a whole, some at a time
-- KEYS       KEYS[1] the subject's theoretical arrival time (GCRA, ITU-T I.371), in microseconds
-- ARGV       ARGV[1] how many a second, ARGV[2] how many at once, ARGV[3] how many are wanted, ARGV[4] fewer than so
--            many are of no use
-- RETURNS    how many were taken (0: none), and in how many ms there are enough
-- WHY ATOMIC two nodes would both take the last one
-- What is not taken for as long as the whole burst needs to fill is forgotten: it stands for nothing.

local interval = 1000000 / ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = interval * ARGV[2]
-- A clock that was set back makes nobody wait for longer than for one whole burst.
local arrival = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now), now + full)
-- Half a microsecond on the caller's side: what was taken one by one must not fall short by rounding.
local there = math.floor((now + full - arrival + 0.5) / interval)
if there < tonumber(ARGV[4]) then
  local missing = arrival + interval * ARGV[4] - full - now
  return {0, math.max(math.ceil(missing / 1000), 1)}
end
local taken = math.min(there, tonumber(ARGV[3]))
arrival = arrival + interval * taken
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', string.format('%.0f', math.ceil((arrival - now) / 1000) + 1))
return {taken, 0}
