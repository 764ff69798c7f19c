-- cancel: a queued turn is withdrawn, a running one asked to stop, a finished one left as it is.
local n = number()
if not find() then return refused('no_session') end
local found = turn(n)
if not found then return refused('no_turn') end
if found.status == 'queued' then
  local was_head = tonumber(call('LINDEX', Q, 0)) == n
  found.status, found.finished = 'cancelled', now
  keep(found)
  call('LREM', Q, 1, n)
  slide()
  append({'turn.cancelled', n, head(n) .. '}'})
  if was_head then line_up() end
  settle()
elseif found.status == 'running' and found.stop ~= 1 then
  found.stop = 1
  keep(found)
  signal('cancel', n)
end
return done(record(n))
