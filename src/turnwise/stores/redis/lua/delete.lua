-- delete: nothing of the session is left. Answers whether it was there. Of the operation a mark is
-- kept for a minute, so that coming twice it deletes no later session of the same name.
local mark = base .. 'deleted:' .. take()
if again and call('EXISTS', mark) == 1 then
  signal('gone', 0)
  return done(1)
end
local was = enter(session) and 1 or 0
if was == 1 then
  purge()
  call('SET', mark, 1, 'EX', 60)
end
return done(was)
