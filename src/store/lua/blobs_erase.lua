#!lua flags=allow-oom
-- PURPOSE    forget blobs of a player who is erased
-- KEYS       KEYS[1] the sizes of her blobs, as in blob_put.lua, then the blobs
-- ARGV       their names, in the same order
-- RETURNS    how many she has left, written since they were named
-- WHY ATOMIC one that is written meanwhile must not lose its size, or stay without one

for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
  redis.call('HDEL', KEYS[1], ARGV[i - 1])
end
return redis.call('HLEN', KEYS[1])
