-- From here on no answer of a request that has entered until now is kept.
return redis.call('SET', P .. ':f', int(now))
