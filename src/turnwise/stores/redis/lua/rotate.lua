-- rotate: a new generation of the session's tokens, above all earlier ones.
if not find() then return refused('no_session') end
set('generation', math.max(row.generation + 1, generation()))
save()
signal('token', row.generation)
return done(row.generation)
