-- backlog: how many sessions have a turn that waits for a worker.
return done(call('ZCARD', READY))
