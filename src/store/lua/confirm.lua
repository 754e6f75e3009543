#!lua flags=allow-oom
-- PURPOSE    say whether all batches of an epoch up to one are here, and write behind them, so that a WAIT which follows on
--            the same connection covers them
-- KEYS       KEYS[1] the shard's meta
-- ARGV       ARGV[1] epoch, ARGV[2] generation in 16 hex, ARGV[3] f
-- RETURNS    1, or 0 and nothing was written
-- WHY ATOMIC a failover between the look and the write could put a store without the batch behind the look

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'f')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or tonumber(meta[3]) < tonumber(ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], 'f', meta[3])
return 1
