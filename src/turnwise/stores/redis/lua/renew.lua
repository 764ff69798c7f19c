-- renew: the leases of these claims (session, token) last `duration` from now. Answers 0 for each
-- that holds, 1 for one whose turn someone wants stopped, 2 for one that is lost.
local duration = number()
local answers = {}
while arg < #ARGV do
  local id, token = take(), take()
  if not enter(id) or row.token ~= token then
    answers[#answers + 1] = 2
  else
    set('lease', now + duration)
    save()
    call('ZADD', LEASES, row.lease, id)
    answers[#answers + 1] = row.stop and 1 or 0
  end
end
return done(answers)
