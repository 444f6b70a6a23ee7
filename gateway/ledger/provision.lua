-- Make a scope's ledger. `probe` tells what must be known to count it, and closes one of another
-- kind; `create` writes the amount found in the records plus what live requests hold.
local kind = req.kind
local number = window_number(kind)
local dirty = tonumber(redis.call('GET', P .. ':m:' .. req.id) or '0')
local b = book_of(req.id)

if req.op == 'probe' then
  if b.k and b.k ~= kind then
    b.k, b.w, b.s, b.h, b.o = nil, nil, nil, nil, nil
    changed[req.id] = b
    write()
  end
  local from, to = window_bounds(kind, number)
  return cmsgpack.pack({exists = b.k == kind, number = number, dirty = dirty, start = from,
    stop = to})
end

if number ~= req.number or dirty ~= req.dirty then return 0 end
if b.k == kind then return 1 end
local spent, held, inflight, wid = req.spent, 0, 0, kind .. ':' .. int(number)
for _, id in ipairs(redis.call('ZRANGE', P .. ':l', 0, -1)) do
  local r = request_of(redis.call('GET', request_key(id)))
  if r and r.sc then
    for i, scope in ipairs(r.sc) do
      if scope == req.id and r.wd[i] == wid then
        spent, held = spent + r.bk[i], held + r.hd[i]
      end
    end
    for _, scope in ipairs(r.cc) do
      if scope == req.id then inflight = inflight + 1 end
    end
  end
end
b.k, b.w, b.s, b.h, b.n = kind, number, spent, held, inflight
changed[req.id] = b
write()
return 1
