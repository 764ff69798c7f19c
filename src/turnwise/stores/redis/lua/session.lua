-- session: a session as its owner sees it, or nothing.
if not find() then return done() end
return done(told())
