-- claim: up to `limit` sessions whose next turn waits, longest waiting first; lapsed leases first
-- count as waiting. A session that someone keeps is left to its keeper for a moment, one that
-- someone wants to hold is left alone until then. An operation that comes again gets what it got.
local token, limit = take(), number()
local worker, duration, attempts, exhausted = take(), number(), number(), take()
local affinity = number()
local LOOK, PAGE = 1000, 100  -- sessions looked at in one act, and read at once

local claims = {}

local function add(found, text)
  -- What the worker knows of the session cannot be asked here: it reads what it lacks.
  claims[#claims + 1] = claimed(found, text, 0, row.last_seq)
end

if again then
  for _, id in ipairs(call('ZRANGE', LEASES, 0, -1)) do
    enter(id)
    if row and is_of(token) then
      add(turn(row.running), question(row.running))
    end
  end
  if #claims > 0 then return done(claims) end
end

for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, PAGE)) do
  if enter(id) then lapse() else call('ZREM', LEASES, id) end
end

-- Those waiting are read in pages; what is left waiting is skipped by the next page.
local passed, looked = 0, 0
while #claims < limit and looked < LOOK do
  local page = call('ZRANGE', READY, passed, passed + PAGE - 1, 'WITHSCORES')
  if #page == 0 then break end
  for i = 1, #page, 2 do
    if #claims == limit then break end
    local id, since = page[i], tonumber(page[i + 1])
    looked = looked + 1
    enter(id)
    if not row or row.token or open == 0 then
      call('ZREM', READY, id)  -- nothing waits there
    elseif (row.reserved or 0) > now
      or row.keeper and row.keeper ~= worker and since > now - affinity then
      passed = passed + 1
    else
      local found, text = start({
        token = token .. '.' .. (#claims + 1), lease = duration, attempts = attempts,
        exhausted = exhausted
      })
      if found then add(found, text) end
      call('ZREM', READY, id)
      settle()
    end
  end
end
return done(claims)
