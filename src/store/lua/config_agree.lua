#!lua
-- PURPOSE    agree on what all nodes of a cluster share: the first proposal wins, what is missing is put back
-- KEYS       KEYS[1] the cluster's configuration
-- ARGV       field, value, field, value, ...
-- RETURNS    the values in force, in the order of the fields
-- WHY ATOMIC two first nodes would otherwise mix their proposals

local agreed = {}
for i = 1, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
  agreed[#agreed + 1] = redis.call('HGET', KEYS[1], ARGV[i])
end
return agreed
