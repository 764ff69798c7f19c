-- release: the turn goes back to the mailbox and its attempt does not count. Nothing is done when
-- the claim is lost, so it may come twice.
local token, n = take(), number()
if not enter(session) or row.token ~= token then return done() end
let_go()
local found = turn(n)
if found.stop == 1 then
  close(found, call('HGET', T, n .. ':m'), {status = 'cancelled'})
else
  found.status, found.attempt = 'queued', found.attempt - 1
  keep(found)
end
set('keeper', false)
line_up()
settle()
return done()
