-- create: makes a session, or answers the one that is there.
local named, name, metadata, ttl = take() == '1', take(), take(), number()
found_or_made(named and name, metadata, ttl)
settle()
return done(told())
