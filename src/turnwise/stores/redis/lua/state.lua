-- state: the session's state as JSON.
if not find() then return refused('no_session') end
return done(row.state or '{}')
