-- release: the turn goes back to the mailbox and its attempt does not count. Nothing is done when
-- the claim is lost, so it may come twice.
local token = take()
if enter(session) and row.token == token then give_back() end
return done()
