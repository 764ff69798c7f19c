-- prove: write and publish something, which is what readiness promises. A replica, a full memory,
-- too few replicas and missing rights refuse it as they would refuse a message.
call('SET', base .. 'proof', now_text, 'PX', 60000)
call(verb, base .. 'signals', table.concat({origin, 'proof', 0, ''}, '\n'))
return done()
