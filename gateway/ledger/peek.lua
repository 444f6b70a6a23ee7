-- Whether the limits would let one more request of one token in. Takes nothing.
local out = {at = now / 1000000, outcome = 'ok'}
local id = request_key('')
read(req.scopes, id, id)

local function ask(scope, kind, arrivals, limit)
  if not limit or out.outcome ~= 'ok' then return end
  local after, wait, tat = gcra(arrivals, 1, limit)
  note_rate(out, kind, limit, tat)
  if after then return end
  out.outcome, out.limited_scope, out.limited_kind = 'limited', scope.id, kind
  if wait then out.retry_after = wait / 1000000 end
end

for _, scope in ipairs(req.scopes) do
  local limits, b = scope.limits or {}, books[scope.id]
  ask(scope, 'requests', b.r, limits.requests_per_minute)
  ask(scope, 'tokens', b.t, limits.tokens_per_minute)
  if out.outcome == 'ok' and limits.concurrency and (b.n or 0) >= limits.concurrency then
    out.outcome, out.limited_scope, out.limited_kind = 'limited', scope.id, 'concurrency'
    out.retry_after = 1
  end
end
return cmsgpack.pack(out)
