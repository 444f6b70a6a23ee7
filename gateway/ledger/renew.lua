-- Prolong leases. Returns the ids that hold none any more.
local gone = {}
for _, id in ipairs(req.ids) do
  local r = request_of(redis.call('GET', request_key(id)))
  if r and (r.st == 'e' or r.st == 'r') then
    lease(id, req.lease_s)
  else
    gone[#gone + 1] = id
  end
end
return gone
