-- Limits, cache, budgets, audit, in this order and in one step. A refusal changes nothing.
local out = {at = now / 1000000}
local scopes, id = req.scopes, req.request_id

local function reply(outcome, cached)
  out.outcome = outcome
  return {cmsgpack.pack(out), cached or false}
end

local function limited(scope, kind, wait)
  out.limited_scope, out.limited_kind = scope.id, kind
  if wait then out.retry_after = wait / 1000000 end
  return reply('limited')
end

local other = req.cache_key and P .. ':x:' .. req.cache_key or request_key(id)
local before, cached = read(scopes, request_key(id), other)
if before then return reply('duplicate') end

local requests, tokens = {}, {}
for i, scope in ipairs(scopes) do
  local limit = scope.limits and scope.limits.requests_per_minute
  if limit then
    local after, wait, tat = gcra(books[scope.id].r, req.counted and 0 or 1, limit)
    note_rate(out, 'requests', limit, tat)
    if not after then return limited(scope, 'requests', wait) end
    requests[i] = after
  end
end

local function take(arrivals, name)
  for i, after in pairs(arrivals) do
    local b = books[scopes[i].id]
    b[name] = after
    changed[b.id] = b
  end
end

if req.cache_key and cached then
  take(requests, 'r')
  left_of(out, scopes)
  write()
  return reply('hit', cached)
end

local r = {st = 'e', sc = {}, wd = {}, hd = {}, bk = {}, cc = {}, tl = {}, t = req.tokens}
for i, scope in ipairs(scopes) do
  local limits = scope.limits or {}
  if limits.tokens_per_minute then
    local after, wait, tat = gcra(books[scope.id].t, req.tokens, limits.tokens_per_minute)
    note_rate(out, 'tokens', limits.tokens_per_minute, tat)
    if not after then return limited(scope, 'tokens', wait) end
    tokens[i] = after
    r.tl[#r.tl + 1] = {scope.id, limits.tokens_per_minute}
  end
  if limits.concurrency then
    if (books[scope.id].n or 0) >= limits.concurrency then
      return limited(scope, 'concurrency', 1000000)
    end
    r.cc[#r.cc + 1] = scope.id
  end
end

if req.costs then
  local chosen, missing, short = hold(scopes, req.costs, r, 0)
  if not chosen then
    left_of(out, scopes)
    out.short = short
    return reply(missing and 'missing' or 'unaffordable')
  end
  out.index = chosen - 1
  r.st, r.d = 'r', ARGV[3]
  if ARGV[4] ~= '' then redis.call('XADD', P .. ':o', '*', 'r', ARGV[4]) end
end
left_of(out, scopes)
take(requests, 'r')
take(tokens, 't')
for _, scope in ipairs(r.cc) do
  local b = books[scope]
  b.n = (b.n or 0) + 1
  changed[scope] = b
end
write(request_key(id), cmsgpack.pack(r))
lease(id, req.lease_s)
return reply('ok')
