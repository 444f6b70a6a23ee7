-- Hold money for a request that has entered; replaces what it held before. A refusal changes
-- nothing.
local out = {at = now / 1000000}
local id = req.request_id
local key = request_key(id)
local r = request_of(read(req.scopes, key, key))
if not r or (r.st ~= 'e' and r.st ~= 'r') then
  out.outcome = 'expired'
  return {cmsgpack.pack(out), false}
end
local chosen, missing, short = hold(req.scopes, req.costs, r, req.booked)
left_of(out, req.scopes)
if chosen then
  out.outcome, out.index = 'ok', chosen - 1
  r.st, r.d = 'r', ARGV[3]
  write(key, cmsgpack.pack(r))
  lease(id, req.lease_s)
  if ARGV[4] ~= '' then redis.call('XADD', P .. ':o', '*', 'r', ARGV[4]) end
else
  out.outcome, out.short = missing and 'missing' or 'unaffordable', short
end
return {cmsgpack.pack(out), false}
