-- commit: what one act has changed, whole or not at all, and only if the session is still what the
-- act was computed from. Answers 1, or 0 if it is not. keys.py says what is kept where.
--
-- KEYS[1]  the base of the partition's keys, all of which are in one slot of a Cluster
-- ARGV     1 session, 2 the version it was computed from ('' none), 3 its version, 4 its header,
--          5 'new' or 'gone' if whatever there was is removed, 6 ready, 7 lease, 8 expires, 9 keeper
--          (each of the four '' if it is as before, '-' if there is none), 10 up to which event it
--          is emptied, 11 how many numbers and states follow, 12 the number of a state that is too
--          old, 13 PUBLISH or SPUBLISH, 14 the process, 15 a signal, 16 whether workers are notified,
--          17 whether followers are, 18 the time, 19 the owner, 20 when it was used last ('-' it is in
--          no list), 21 and 22 by how much the owner's open and running turns change, 23 which
--          entries of the memory go ('first last'), 24 when a turn failed, 25 and 26 the channel on
--          which something was and is to be sent, 27 how many fields and values follow; those; the numbers and states; then of each entry: its stream, id and value,
--          a field of the header's hash for it and what is in the field ('' the same value)
local call, base, A = redis.call, KEYS[1], ARGV
local id = A[1]
local H, S = base .. 'h:' .. id, base .. 's:' .. id
local was = call('HGET', H, 'v') or ''
if was ~= A[2] then return 0 end

-- What is published is a hint: where it cannot be sent, an act that has begun to write goes on.
local function tell(channel, text)
  redis.pcall(A[13], base .. channel, A[14] .. '\0' .. text)
end

local function index(name, value)
  if value == '-' then
    call('ZREM', base .. name, id)
  elseif value ~= '' then
    call('ZADD', base .. name, value, id)
  end
end

-- The line of those that are ready: see PLACED in stores/header.py.
local function line_up(at)
  local own = base .. 'r:' .. A[19]
  call('ZREM', base .. 'later', id)
  if at == '-' or tonumber(at) > A[18] + 1 then
    call('ZREM', base .. 'ready', id)
    call('ZREM', base .. 'line', id)
    if A[19] ~= '' then call('ZREM', own, id) end
    if at ~= '-' then call('ZADD', base .. 'later', at, id) end
    return
  end
  call('ZADD', base .. 'ready', at, id)
  if call('ZSCORE', base .. 'line', id) then return end
  -- Within a place the time counts; a day is enough to tell them apart.
  local place = math.floor(call('ZRANGE', base .. 'line', 0, 0, 'WITHSCORES')[2] or 1)
  if A[19] ~= '' then
    local last = call('ZRANGE', own, -1, -1, 'WITHSCORES')[2]
    place = math.max(place, 1 + (last or 0))
    call('ZADD', own, place, id)
  end
  call('ZADD', base .. 'line', place + (at % 100000) / 100000, id)
end

local function count(name, change)
  if change ~= '' and change ~= '0' then call('HINCRBY', base .. 'n:' .. A[19], name, change) end
end

if A[5] == 'gone' or (A[5] == 'new' and was ~= '') then
  call('UNLINK', H, S, base .. 'e:' .. id, base .. 'd:' .. id, base .. 'm:' .. id)
  for _, index in ipairs({'ids', 'ready', 'line', 'later', 'leases', 'expiry', 'trim', 'failed'}) do
    call('ZREM', base .. index, id)
  end
  if A[19] ~= '' then call('ZREM', base .. 'r:' .. A[19], id) end
  call('HDEL', base .. 'keepers', id)
  call('HDEL', base .. 'erasing', id)
end

-- For lack of memory Redis refuses only a script that has not written yet.
if A[5] ~= 'gone' then
  local fields, told = {'v', A[3], 'h', A[4]}, {}
  local states = 28 + A[27]
  local first = states + A[11]
  for i = 28, states - 1 do fields[#fields + 1] = A[i] end
  for i = first, #A, 5 do
    call('XADD', base .. A[i] .. ':' .. id, A[i + 1], 'b', A[i + 2])
    if A[i] ~= 'm' then told[#told + 1] = A[i + 2] end
    if A[i] == 'd' then call('ZADD', base .. 'trim', 'NX', A[18], id) end
    if A[i + 3] ~= '' then
      fields[#fields + 1] = A[i + 3]
      fields[#fields + 1] = A[i + 4] == '' and A[i + 2] or A[i + 4]
    end
  end
  for i = 1, #fields, 4000 do  -- a call takes some thousand arguments at most
    call('HSET', H, unpack(fields, i, math.min(i + 3999, #fields)))
  end
  if A[17] ~= '' then tell('c:' .. id, table.concat(told, '\0')) end
  if A[5] == 'new' then call('ZADD', base .. 'ids', 0, id) end
  if A[10] ~= '' then
    call('HSET', base .. 'erasing', id, A[10])
    call('UNLINK', S, base .. 'm:' .. id)
  end
  if first > states then
    call('HSET', S, unpack(A, states, first - 1))
    call('HDEL', S, A[12])
  end
  if A[6] ~= '' then line_up(A[6]) end
  index('leases', A[7])
  index('expiry', A[8])
  index('failed', A[24])
  if A[9] == '-' then
    call('HDEL', base .. 'keepers', id)
  elseif A[9] ~= '' then
    call('HSET', base .. 'keepers', id, A[9])
  end
end
if A[20] == '-' then
  call('ZREM', base .. 'o:' .. A[19], id)
elseif A[20] ~= '' then
  call('ZADD', base .. 'o:' .. A[19], A[20], id)
end
if A[25] ~= A[26] then
  if A[25] ~= '' then call('ZREM', base .. 'x:' .. A[25], id) end
  if A[26] ~= '' then call('ZADD', base .. 'x:' .. A[26], A[18], id) end
end
count('open', A[21])
count('running', A[22])
if A[23] ~= '' then
  local first, last = string.match(A[23], '(%d+) (%d+)')
  for number = first, last do call('XDEL', base .. 'm:' .. id, number .. '-0') end
end
if A[15] ~= '' then tell('signals', A[15]) end
-- While many sessions wait, all workers are at it.
if A[16] == 'keeper' or (A[16] ~= '' and call('ZCARD', base .. 'line') <= 16) then
  tell('signals', 'ready\n0\n')
end
return 1
