-- save: a hold ends; the state is written if one is given. The same operation is done once.
local op, token, state = take(), take(), optional()
if not enter(session) then return refused('claim_lost') end
if row.token ~= token then
  return row.save_op == op and done() or refused('claim_lost')
end
if state then set('state', state) end
set('save_op', op)
let_go()
slide()
line_up()
settle()
return done()
