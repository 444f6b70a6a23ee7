-- Close leases that have run out. What was held is booked in full: the call may have cost that.
local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. ':l', '-inf', int(now), 'LIMIT', 0, req.limit)) do
  local key = request_key(id)
  local r = request_of(redis.call('GET', key))
  if r and (r.st == 'e' or r.st == 'r') then
    for i, scope in ipairs(r.sc) do
      post(scope, r.wd[i], r.hd[i], -r.hd[i])
      r.bk[i] = r.bk[i] + r.hd[i]
      r.hd[i] = 0
    end
    if r.st == 'r' then
      r.xc = r.a + r.b
      redis.call('XADD', P .. ':o', '*', 'x', r.d, 't', 'lease_expired', 'c', int(r.xc))
    end
    release(id, r)
    r.st = 'x'
    redis.call('SET', key, cmsgpack.pack(r), 'EX', EXPIRED_TTL)
    expired[#expired + 1] = id
  else
    redis.call('ZREM', P .. ':l', id)
  end
end
write()
return expired
