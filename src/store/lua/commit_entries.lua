-- PURPOSE    the second half of commit.lua, and the same script: the events and timelines that go with the records, and
--            what the meta says afterwards
-- KEYS       KEYS[1] meta, KEYS[4] the shard's events; the timelines follow the records' keys, as commit.lua says
-- ARGV       ARGV[7] how many events are kept, ARGV[8] how many entries of a timeline, ARGV[9] for how many ms after the last
--            one; the entries' list, last of all: record number, version in 16 hex, where it goes (e events, t timeline,
--            b both, f nowhere: the timeline so far is forgotten), body
-- RETURNS    as commit.lua says
-- WHY ATOMIC an event without its change would be a lie, and a change without its event would never be told
-- An entry of a version that is stored already was written with it: a batch comes again after an answer was lost.

local told, timeline, whose = tonumber(meta[6] or '0'), w, nil
local before, last = told, meta[7]
-- Batches whose answers were lost may be lost as well, after somebody had read their events: no number is given out twice.
-- A batch holds 4096 events at most. The first event behind such a jump says what it comes after: nothing is missing.
local lost = f - meta[4] - 1
if lost > 0 then last, told = last or meta[6] or '0', told + 4096 * lost end

-- By epoch and number: no two are ever the same, and one that was cut off shows as a gap in the numbers.
local function tell(player, body)
  told = told + 1
  local place = epoch .. '-' .. string.format('%.0f', told)
  local function add(how)
    if not last then return how('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], place, 'e', body, 'p', player) end
    return how('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], place, 'e', body, 'p', player, 'a', last)
  end
  local added = add(redis.pcall)
  -- Only behind the back of a meta that was lost while the clock went back: what was told before is of no use any more.
  if type(added) == 'table' and added.err then
    call('DEL', KEYS[4])
    add(call)
  end
  last = false
end

for i = entries + 1, #ARGV, 4 do
  local n, version, goes, body = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if goes ~= 'e' and n ~= whose then timeline, whose = timeline + 1, n end
  if verdicts[n] ~= 'g' and verdicts[n] ~= 'e' and sub(headers[n], 17) < version then
    if goes == 'e' or goes == 'b' then tell(sub(KEYS[n + 4], #KEYS[1] + 2), body) end
    if goes == 'f' then call('DEL', KEYS[timeline])
    elseif goes ~= 'e' then
      call('XADD', KEYS[timeline], 'MAXLEN', ARGV[8], '*', 'e', body)
      call('PEXPIRE', KEYS[timeline], ARGV[9])
    end
  end
end
if told > before then call('HSET', KEYS[1], 'ev', string.format('%.0f', told)) end
if last and lost > 0 then call('HSET', KEYS[1], 'ev_last', last)
elseif meta[7] and not last then call('HDEL', KEYS[1], 'ev_last') end
call('HSET', KEYS[1], 'f', f, 'vmax', vmax)
return {'done', table.concat(verdicts), unpack(found)}
