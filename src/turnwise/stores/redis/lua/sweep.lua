-- sweep: sessions that expired are deleted, and events older than `retention` forgotten, none of an
-- open turn; at most `limit` sessions each. Answers how many were deleted.
local retention, limit = number(), number()
local PAGE = 500
local deleted = 0
for _, id in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', now, 'LIMIT', 0, limit)) do
  enter(id)
  if not row then
    purge()  -- Redis itself has let its keys expire
    deleted = deleted + 1
  elseif row.expires > now then
    call('ZADD', EXPIRY, row.expires, id)
  elseif not row.token and open == 0 then
    purge()
    deleted = deleted + 1
  else
    call('ZADD', EXPIRY, now + 60000000, id)  -- busy: it is looked at again in a minute
  end
end

local function at(entry)
  return tonumber(entry[2][4])
end

-- Forget old events of the session; returns when its oldest one is due.
local function trim(cutoff)
  local last = row.last_event
  local n = call('LINDEX', Q, 0)
  if n then last = turn(tonumber(n)).first - 1 end
  local upto, page = row.floor, nil
  repeat
    page = call('XRANGE', L, (upto + 1) .. '-0', '+', 'COUNT', PAGE)
    for _, entry in ipairs(page) do
      local id = tonumber(string.match(entry[1], '^%d+'))
      if id > last or at(entry) >= cutoff then
        page = {}
        break
      end
      upto = id
    end
  until #page < PAGE
  if upto > row.floor then
    call('XTRIM', L, 'MINID', (upto + 1) .. '-0')
    set('floor', upto)
    save()
  end
  local oldest = call('XRANGE', L, '-', '+', 'COUNT', 1)[1]
  return oldest and math.max(at(oldest), cutoff + 1000000)
end

local cutoff = now - retention
for _, id in ipairs(call('ZRANGEBYSCORE', TRIM, '-inf', '(' .. string.format('%.0f', cutoff), 'LIMIT', 0, limit)) do
  local due = enter(id) and trim(cutoff)
  if due then call('ZADD', TRIM, due, id) else call('ZREM', TRIM, id) end
end
return done(deleted)
