#!lua
-- PURPOSE    write one batch of a shard's records behind one fence: all that may be written, or nothing;
--            commit_entries.lua is its second half, and the same script
-- KEYS       KEYS[1] meta, KEYS[2] expiry index, KEYS[3] filter, the fourth is the second half's,
--            then p of each record, then w of each record that is not unmoved, then the timeline of each record with an
--            entry that goes there; the list of the banned comes last, and only if the bans' list is not empty
-- ARGV       ARGV[1] owner, ARGV[2] epoch, ARGV[3] epoch in 16 hex, ARGV[4] generation in 16 hex,
--            ARGV[5] f, ARGV[6] f_acked, the next three are the second half's,
--            ARGV[10] a letter a record: u unmoved, l live, w live with a new w, r remainder, x erase; a capital: restore,
--            ARGV[11] 32 hex a record: the header that should be stored, ours, with the base,
--            ARGV[12] how many the filter's list holds, ARGV[13] how many the bans' list holds,
--            then p with its header of each record,
--            then ttl in ms, score, w of each record that is not unmoved,
--            then the filter's list: record number, bit; the bans' list: record number, when it ends or '' (lifted);
--            the entries' list (second half)
-- RETURNS    {'done', a letter a record, then p and w of each record with an e}: a applied, s same, r repaired,
--            t restored, g gone, e exists; or {'fenced', epoch}, {'stale', f}, {'rolled_back'}, {'lost'}
-- WHY ATOMIC the fence must hold for every write of the batch; the rules are those of src/store/judge.rs
-- Numbers that must not be rounded are 16 hex digits: as strings of one length they compare as the numbers do.
-- An argument costs 0.2 us, a call 0.5: so most records come as one key and one string, and numbers in Lua's own form,
-- which Redis would print anew for every call, come as strings.

local call, sub = redis.call, string.sub
local owner, epoch, ours, generation, f = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local meta = call('HMGET', KEYS[1], 'epoch', 'holder', 'gen', 'f', 'vmax', 'ev', 'ev_last')
if meta[3] ~= generation then return {'lost'} end
if tonumber(meta[1]) > tonumber(epoch) then return {'fenced', meta[1]} end
if meta[1] ~= epoch then return {'rolled_back'} end
if meta[2] ~= owner then return {'fenced', epoch} end
if tonumber(meta[4]) >= tonumber(f) then return {'stale', meta[4]} end
if tonumber(meta[4]) < tonumber(ARGV[6]) then return {'rolled_back'} end

local function judged(letter, header, base, version)
  local kind, by, stored = letter:lower(), sub(header, 1, 16), sub(header, 17)
  local restore, first = kind ~= letter, base == '0000000000000000'
  if kind == 'u' then return by == ours and stored >= base and stored <= version and 'a' or 'g' end
  if header == '' then return first and 'a' or restore and 't' or 'g' end
  if by > ours or stored > version or (by < ours and first) then return 'e' end
  if stored < base then return restore and 'r' or 'g' end
  if stored == version then return 's' end
  return by < ours and stored > base and not restore and 'e' or 'a'
end

local letters, due, records, headers, verdicts, found = ARGV[10], ARGV[11], #ARGV[10], {}, {}, {}
for n = 1, records do
  local header = call('GETRANGE', KEYS[n + 4], '0', '31')
  local old, new = sub(due, 32 * n - 31, 32 * n), sub(ARGV[n + 13], 1, 32)
  headers[n] = header
  verdicts[n] = header == new and 's' or header == old and 'a'
    or judged(sub(letters, n, n), header, sub(old, 17), sub(new, 17))
end

local index, vmax, w, at = {}, meta[5], 4 + records, 13 + records
for n = 1, records do
  local kind, verdict, p, value = sub(letters, n, n):lower(), verdicts[n], KEYS[n + 4], ARGV[n + 13]
  if kind == 'u' then
    if verdict ~= 'g' then call('SET', p, value, 'KEEPTTL') end
  else
    w, at = w + 1, at + 3
    if verdict == 'e' then
      found[#found + 1], found[#found + 2] = call('GET', p), call('GET', KEYS[w])
    elseif verdict ~= 'g' then
      local ttl, player = ARGV[at - 2], sub(p, #KEYS[1] + 2)
      if kind == 'x' then call('DEL', p) else call('SET', p, value, 'PX', ttl) end
      if kind == 'l' then call('PEXPIRE', KEYS[w], ttl)
      elseif kind == 'w' and ARGV[at] ~= '' then call('SET', KEYS[w], ARGV[at], 'PX', ttl)
      else call('DEL', KEYS[w]) end
      if kind == 'l' or kind == 'w' then index[#index + 1], index[#index + 2] = ARGV[at - 1], player
      else
        call('ZREM', KEYS[2], player)
        if sub(value, 17, 32) > vmax then vmax = sub(value, 17, 32) end
      end
    end
  end
end
if #index > 0 then call('ZADD', KEYS[2], unpack(index)) end

local bans = at + tonumber(ARGV[12])
for i = at + 1, bans, 2 do
  local verdict = verdicts[tonumber(ARGV[i])]
  if verdict ~= 'g' and verdict ~= 'e' then call('SETBIT', KEYS[3], ARGV[i + 1], '1') end
end
local entries = bans + tonumber(ARGV[13])
for i = bans + 1, entries, 2 do
  local n, ends = tonumber(ARGV[i]), ARGV[i + 1]
  local player, verdict = sub(KEYS[n + 4], #KEYS[1] + 2), verdicts[n]
  if verdict == 'g' or verdict == 'e' then player = nil end
  if player and ends ~= '' then call('ZADD', KEYS[#KEYS], ends, player)
  elseif player then call('ZREM', KEYS[#KEYS], player) end
end
-- Whose ban ended a day ago and whose record ran out since leaves nobody else to take the name off.
if entries > bans then
  call('ZREMRANGEBYSCORE', KEYS[#KEYS], '-inf', string.format('%.0f', call('TIME')[1] * 1000 - 86400000))
end
