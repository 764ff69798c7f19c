-- cancel: a queued turn is withdrawn, a running one asked to stop, a finished one left as it is.
local n = number()
if not find() then return refused('no_session') end
local found = turn(n)
if not found then return refused('no_turn') end
if found.status == 'queued' then
  local was_head = tonumber(call('LINDEX', Q, 0)) == n
  found.status, found.finished = 'cancelled', now_text
  keep(found)
  call('LREM', Q, 1, n)
  open = open - 1
  slide()
  append({'turn.cancelled', n, head(n) .. '}'})
  if was_head then
    call('ZREM', READY, session)
    line_up()
  end
  settle()
elseif found.status == 'running' and (again or not row.stop) then
  set('stop', n)
  save()
  signal('cancel', n)
end
return done(record(n))
