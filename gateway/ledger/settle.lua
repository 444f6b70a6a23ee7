-- Book what a request really cost, give back what it held, file its records, keep its answer.
-- Once: a second settlement of the same request changes nothing.
local out = {duplicate = false}
local id = req.request_id
local key = request_key(id)
local r = request_of(read(req.scopes, key, key))
if r and r.st == 'd' then
  out.duplicate = true
  left_of(out, req.scopes)
  return cmsgpack.pack(out)
end

local seen = {}
if r then
  for i, scope in ipairs(r.sc) do
    seen[scope] = true
    post(scope, r.wd[i], req.cost - r.bk[i], -r.hd[i])
  end
  for _, limit in ipairs(r.tl) do
    local b = book_of(limit[1])
    if b.t then
      b.t = b.t + (req.tokens - r.t) * MINUTE / limit[2]
      changed[b.id] = b
    end
  end
  if r.st ~= 'x' then release(id, r) end
end
for _, scope in ipairs(req.scopes) do
  if scope.budget and not seen[scope.id] then post(scope.id, nil, req.cost, 0) end
end

if r and r.xc then
  -- The sweeper has filed the worst case as spent: take that back, the true records follow.
  redis.call('XADD', P .. ':o', '*', 'x', r.d, 't', 'corrected', 'c', int(-r.xc))
end
local fields = {}
for i = 4, #ARGV do
  fields[#fields + 1], fields[#fields + 2] = 'r', ARGV[i]
end
if #fields > 0 then redis.call('XADD', P .. ':o', '*', unpack(fields)) end
if req.cache_key and ARGV[3] ~= '' and req.cache_ttl > 0 then
  -- An answer of before a deletion must not come back after it.
  local forgotten = redis.call('GET', P .. ':f')
  if not forgotten or req.entered > tonumber(forgotten) / 1000000 then
    redis.call('SET', P .. ':x:' .. req.cache_key, ARGV[3], 'EX', req.cache_ttl)
  end
end
left_of(out, req.scopes)
write()
redis.call('SET', key, 'd', 'EX', DONE_TTL)
return cmsgpack.pack(out)
