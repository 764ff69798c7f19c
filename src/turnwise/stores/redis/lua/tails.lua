-- tails: the number of the last event of each of these sessions, -1 for one that is not there.
local answers = {}
while arg < #ARGV do
  answers[#answers + 1] = tonumber(call('HGET', base .. 's:' .. take(), 'last_event') or -1)
end
return done(answers)
