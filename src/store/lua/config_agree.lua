#!lua
-- PURPOSE    agree on what all nodes of a cluster share: the first proposal wins, what is missing is put back
-- KEYS       KEYS[1] the cluster's configuration
-- ARGV       ARGV[1] founds | insists, ARGV[2] for how many ms a cluster is being founded, then field, value, field, value, ...
-- RETURNS    for how many more ms the cluster is being founded, and the values in force, in the order of the fields
-- WHY ATOMIC two first nodes would otherwise mix their proposals
-- Who finds nothing may look at a store that has just lost everything, beside nodes that live on: while a cluster is
-- being founded, their word counts. It goes on when the first of them has spoken: the others may not have found yet that
-- their leases are gone.

local config, insists = KEYS[1], ARGV[1] == 'insists'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored = redis.call('HGET', config, 'founded_at')
local founded_at = tonumber(stored or 0)
for i = 3, #ARGV, 2 do
  if insists and founded_at > now then
    redis.call('HSET', config, ARGV[i], ARGV[i + 1])
  else
    redis.call('HSETNX', config, ARGV[i], ARGV[i + 1])
  end
end
-- No clock that was set back makes anybody wait for longer than that.
founded_at = math.min(stored and founded_at or math.huge, now + ARGV[2])
redis.call('HSET', config, 'founded_at', string.format('%.0f', founded_at))
local agreed = { math.max(founded_at - now, 0) }
for i = 3, #ARGV, 2 do
  agreed[#agreed + 1] = redis.call('HGET', config, ARGV[i])
end
return agreed
