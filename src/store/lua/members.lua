#!lua flags=allow-oom
-- PURPOSE    a node says that it lives, or that it leaves, and hears who else lives
-- KEYS       KEYS[1] the nodes: a hash of names to 'deadline heard-at owner what-it-says'
-- ARGV       ARGV[1] the node's name, ARGV[2] its owner, ARGV[3] 'join', 'beat' or 'leave',
--            ARGV[4] ttl in ms, ARGV[5] most nodes, ARGV[6] what it says of itself
-- RETURNS    {'members', owner, age in ms, what it says, owner, ...}, the caller first unless it leaves, at the end
--            some names of entries that are none, with '' and ''; {'superseded', owner}, {'full'} or, to one that
--            joins, {'unreadable', the name of such an entry}
-- WHY ATOMIC two processes of one name would each take itself for the newer one
-- A full Redis must not make nodes forget each other: hence allow-oom.

local node, owner, verb, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full_term = string.format('%.0f', now + ttl)

local entries = redis.call('HGETALL', KEYS[1])
local members, dead, cut, odd = {'members'}, {}, {}, {}
if verb ~= 'leave' then
  members = {'members', owner, '0', ARGV[6]}
end
for i = 1, #entries, 2 do
  local name, entry = entries[i], entries[i + 1]
  local deadline, heard, who, says = string.match(entry, '^(%d+) (%d+) (%S+) (.*)$')
  local lives = deadline and tonumber(deadline) > now
  if name == node then
    if verb ~= 'join' and who ~= owner and lives then
      return {'superseded', who}
    end
  elseif not deadline then
    odd[#odd + 1] = name
  elseif lives then
    members[#members + 1] = who
    members[#members + 1] = string.format('%.0f', math.max(now - heard, 0))
    members[#members + 1] = says
    -- One that seems to live on for more than an hour is the work of a clock that was set back.
    if tonumber(deadline) > now + 3600000 then
      cut[name] = full_term .. ' ' .. heard .. ' ' .. who .. ' ' .. says
    end
  else
    dead[#dead + 1] = name
  end
end
if verb == 'join' and odd[1] then return {'unreadable', odd[1]} end
if verb ~= 'leave' and (#members - 1) / 3 > tonumber(ARGV[5]) then
  return {'full'}
end
for _, name in ipairs(dead) do redis.call('HDEL', KEYS[1], name) end
for name, entry in pairs(cut) do redis.call('HSET', KEYS[1], name, entry) end
if verb == 'leave' then
  redis.call('HDEL', KEYS[1], node)
else
  redis.call('HSET', KEYS[1], node, full_term .. ' ' .. string.format('%.0f', now) .. ' ' .. owner .. ' ' .. ARGV[6])
end
for i = 1, math.min(#odd, 8) do
  members[#members + 1], members[#members + 2], members[#members + 3] = odd[i], '', ''
end
return members
