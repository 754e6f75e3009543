#!lua
-- PURPOSE    write one batch of a shard's records behind one fence: all that may be written, or nothing
-- KEYS       KEYS[1] meta, KEYS[2] expiry index, KEYS[3] filter, KEYS[4] events,
--            then for each record n, from 1: KEYS[2n+3] p, KEYS[2n+4] w
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] epoch in 16 hex, ARGV[4] generation in 16 hex,
--            ARGV[5] f, ARGV[6] f_acked, ARGV[7] how many events are kept,
--            ARGV[8] where the filter's list starts, ARGV[9] where the events' list starts,
--            then for each record n, from ARGV[7n+3]: base in 16 hex; keep (live, live+w, remainder, erase);
--            'restore' or ''; ttl, ms; score; p with its header; w;
--            the filter's list: record number, bit; the events' list: record number, event
-- RETURNS    {'done', a letter a record, then p and w of each record with an e}: a applied, s same, r repaired,
--            t restored, g gone, e exists; or {'fenced', epoch}, {'stale', f}, {'rolled_back'}, {'lost'}
-- WHY ATOMIC the fence must hold for every write of the batch; the rules are those of src/store/judge.rs
-- Numbers that must not be rounded are 16 hex digits: as strings of one length they compare as the numbers do.

local call, sub = redis.call, string.sub
local owner, epoch, ours, generation, f = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen', 'f', 'vmax')
if meta[3] ~= generation then return {'lost'} end
if tonumber(meta[1]) > tonumber(epoch) then return {'fenced', meta[1]} end
if meta[1] ~= epoch then return {'rolled_back'} end
if meta[2] ~= owner then return {'fenced', epoch} end
if tonumber(meta[4]) >= tonumber(f) then return {'stale', meta[4]} end
if tonumber(meta[4]) < tonumber(ARGV[6]) then return {'rolled_back'} end

local NEVER = '0000000000000000'
local records, verdicts, found = (#KEYS - 4) / 2, {}, {}
for n = 1, records do
  local at = 7 * n + 3
  local base, restore, version = ARGV[at], ARGV[at + 2] ~= '', sub(ARGV[at + 5], 17, 32)
  local header, verdict = call('GETRANGE', KEYS[2 * n + 3], 0, 31), 'a'
  if header == '' then
    if base ~= NEVER then verdict = restore and 't' or 'g' end
  else
    local by, stored = sub(header, 1, 16), sub(header, 17, 32)
    if by > ours or stored > version or (by < ours and base == NEVER) then verdict = 'e'
    elseif stored < base then verdict = restore and 'r' or 'g'
    elseif stored == version then verdict = 's'
    elseif by < ours and stored > base and not restore then verdict = 'e' end
  end
  verdicts[n] = verdict
  if verdict == 'e' then
    found[#found + 1] = call('GET', KEYS[2 * n + 3])
    found[#found + 1] = call('GET', KEYS[2 * n + 4])
  end
end

local index, vmax = {}, meta[5]
for n = 1, records do
  if verdicts[n] ~= 'g' and verdicts[n] ~= 'e' then
    local at, p, w = 7 * n + 3, KEYS[2 * n + 3], KEYS[2 * n + 4]
    local keep, ttl, player = ARGV[at + 1], ARGV[at + 3], sub(p, #KEYS[1] + 2)
    if keep == 'erase' then call('DEL', p) else call('SET', p, ARGV[at + 5], 'PX', ttl) end
    if keep == 'live' then call('PEXPIRE', w, ttl)
    elseif keep == 'live+w' and ARGV[at + 6] ~= '' then call('SET', w, ARGV[at + 6], 'PX', ttl)
    else call('DEL', w) end
    if keep == 'live' or keep == 'live+w' then
      index[#index + 1], index[#index + 2] = ARGV[at + 4], player
    else
      call('ZREM', KEYS[2], player)
      if sub(ARGV[at + 5], 17, 32) > vmax then vmax = sub(ARGV[at + 5], 17, 32) end
    end
  end
end
if #index > 0 then call('ZADD', KEYS[2], unpack(index)) end
for i = tonumber(ARGV[8]), tonumber(ARGV[9]) - 1, 2 do
  local verdict = verdicts[tonumber(ARGV[i])]
  if verdict ~= 'g' and verdict ~= 'e' then call('SETBIT', KEYS[3], ARGV[i + 1], 1) end
end
for i = tonumber(ARGV[9]), #ARGV, 2 do
  local verdict = verdicts[tonumber(ARGV[i])]
  if verdict == 'a' or verdict == 'r' or verdict == 't' then
    call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], '*', 'e', ARGV[i + 1])
  end
end
call('HSET', KEYS[1], 'f', f, 'vmax', vmax)
return {'done', table.concat(verdicts), unpack(found)}
