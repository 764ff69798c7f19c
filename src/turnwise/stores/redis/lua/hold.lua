-- hold: the session itself is claimed, between turns. Answers nothing while a turn runs; then the
-- session starts no new turn for a moment, so that whoever asks again comes first.
local token, duration, reservation = take(), number(), number()
if not find() then return refused('no_session') end
if row.token == token then
  return done(claimed({n = 0, attempt = 0}, '', 0, row.last_seq))
end
if row.token and row.lease <= now then lapse() end
if row.token then
  set('reserved', now + reservation)
  save()
  return done()
end
set('reserved', false)
lease(token, 0, duration)
settle()
return done(claimed({n = 0, attempt = 0}, '', 0, row.last_seq))
