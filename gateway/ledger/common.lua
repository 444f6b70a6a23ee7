-- Shared by every script: KEYS[1] is "th:{org}", ARGV[1] the request as a msgpack map,
-- ARGV[2] the time for tests, else empty; then bytes that msgpack here cannot carry.
-- All keys of an org carry its hash tag, so the scripts stay within one slot of a cluster.
--
--   :b:<scope>  msgpack map, no TTL: k window kind (absent: no ledger), w window number, s spent,
--               h held (nano-USD), o earlier windows with holds to settle {window = {s, h}};
--               r, t arrival times of requests and tokens (GCRA, us); n requests in flight
--   :r:<id>     msgpack map of a request: st e(ntered) r(eserved) x(expired), or the text "d"(one);
--               sc scope ids with wd windows, hd held, bk booked; a and b the same for any scope;
--               cc concurrency scopes; tl token scopes, t tokens taken; d draft; xc cost filed
--   :l          sorted set, request id by lease end (us)
--   :x:<key>    cached answer, TTL     :o  outbox stream     :m:<scope> bookings on a missing ledger
--   :f          when the cached answers were last deleted (us), no TTL
local P = KEYS[1]
local req = cmsgpack.unpack(ARGV[1])

local MINUTE = 60000000
local DONE_TTL = 600
local EXPIRED_TTL = 86400

-- Microseconds of the server's clock, the same for all replicas; tests may set it.
local now = tonumber(ARGV[2] or '')
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function int(n)
  return string.format('%.0f', n)
end

-- Days since 1970-01-01 to months since year 0, and back (H. Hinnant, "chrono-compatible
-- low-level date algorithms": days_from_civil, civil_from_days).
local function month_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400
  if month <= 2 then year = year + 1 end
  return year * 12 + month - 1
end

local function first_day(number)
  local year, month = math.floor(number / 12), number % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5)
  local doe = yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy
  return era * 146097 + doe - 719468
end

local function window_number(kind)
  local seconds = math.floor(now / 1000000)
  if kind == 'total' then return 0 end
  if kind == 'day' then return math.floor(seconds / 86400) end
  if kind == 'month' then return month_of(math.floor(seconds / 86400)) end
  return math.floor(seconds / tonumber(kind))
end

-- Start and end in seconds since the epoch; a "total" window has neither (-1).
local function window_bounds(kind, number)
  if kind == 'total' then return -1, -1 end
  if kind == 'day' then return number * 86400, (number + 1) * 86400 end
  if kind == 'month' then return first_day(number) * 86400, first_day(number + 1) * 86400 end
  local size = tonumber(kind)
  return number * size, (number + 1) * size
end

local books, changed = {}, {}

-- A scope's record, in the current window: opens the next window when it is time, and never goes
-- back to an earlier one.
local function open(id, packed)
  local b = packed and cmsgpack.unpack(packed) or {}
  b.id = id
  if b.k then
    local number = window_number(b.k)
    if number > b.w then
      if b.h > 0 then
        b.o = b.o or {}
        b.o[b.k .. ':' .. int(b.w)] = {b.s, b.h}
      end
      b.w, b.s, b.h = number, 0, 0
      changed[id] = b
    end
    b.wid = b.k .. ':' .. int(b.w)
  end
  books[id] = b
  return b
end

-- Read the request, one more key, and all scopes in one go; returns the first two as they are.
local function read(scopes, request, other)
  local keys = {request, other}
  for i, scope in ipairs(scopes) do keys[i + 2] = P .. ':b:' .. scope.id end
  local values = redis.call('MGET', unpack(keys))
  for i, scope in ipairs(scopes) do open(scope.id, values[i + 2]) end
  return values[1], values[2]
end

local function book_of(id)
  return books[id] or open(id, redis.call('GET', P .. ':b:' .. id))
end

-- Write every changed scope, and one more key.
local function write(key, value)
  local args = {key, value}
  for id, b in pairs(changed) do
    b.id, b.wid = nil, nil
    args[#args + 1], args[#args + 2] = P .. ':b:' .. id, cmsgpack.pack(b)
  end
  if #args > 0 then redis.call('MSET', unpack(args)) end
  books, changed = {}, {}
end

local function ledger_of(scope)
  local b = book_of(scope.id)
  return b.k == scope.budget.window and b or nil
end

-- Spent and held of one window of a scope; nil for a window that is closed for good.
local function slot(b, wid)
  if wid == nil or wid == b.wid then return b.s, b.h end
  local old = b.o and b.o[wid]
  if old then return old[1], old[2] end
  return nil
end

local function put(b, wid, s, h)
  s, h = math.max(0, s), math.max(0, h)
  changed[b.id] = b
  if wid == nil or wid == b.wid then
    b.s, b.h = s, h
  elseif h > 0 then
    b.o[wid] = {s, h}
  else
    b.o[wid] = nil
    if not next(b.o) then b.o = nil end
  end
end

-- Change what is spent and held in a window. On a missing ledger only the fact is kept: the
-- rebuild reads the amounts from the records, and starts anew when this count has moved.
local function post(id, wid, spent, held)
  if spent == 0 and held == 0 then return end
  local b = book_of(id)
  if not b.k then
    redis.call('INCR', P .. ':m:' .. id)
    redis.call('EXPIRE', P .. ':m:' .. id, EXPIRED_TTL)
    return
  end
  local s, h = slot(b, wid)
  if s then put(b, wid, s + spent, h + held) end
end

local function request_key(id)
  return P .. ':r:' .. id
end

local function request_of(packed)
  if not packed then return nil end
  if packed == 'd' then return {st = 'd'} end
  return cmsgpack.unpack(packed)
end

local function lease(id, seconds)
  redis.call('ZADD', P .. ':l', int(now + seconds * 1000000), id)
end

local function release(id, r)
  redis.call('ZREM', P .. ':l', id)
  for _, scope in ipairs(r.cc) do
    local b = book_of(scope)
    b.n = math.max(0, (b.n or 0) - 1)
    changed[scope] = b
  end
end

-- GCRA: the arrival time after `n` more at `limit` a minute; else nil and how long to wait (us).
local function gcra(tat, n, limit)
  if limit <= 0 then return nil, nil, now + MINUTE end
  tat = math.min(math.max(tat or 0, now), now + 2 * MINUTE)
  local after = tat + n * MINUTE / limit
  local over = after - now - MINUTE
  if over > 10 then return nil, n <= limit and over or nil, tat end
  return after, nil, after
end

-- The tightest scope's rate, for the headers of the answer.
local function note_rate(out, name, limit, tat)
  local ahead = math.max(0, tat - now)
  local remaining = math.max(0, math.floor((MINUTE - ahead) * limit / MINUTE + 1e-6))
  if not out[name] or remaining < out[name].remaining then
    out[name] = {limit = limit, remaining = remaining, reset = ahead / 1000000}
  end
end

local function left_of(out, scopes)
  for _, scope in ipairs(scopes) do
    if scope.budget then
      local b = ledger_of(scope)
      local left = b and math.max(0, scope.budget.limit - b.s - b.h) or 0
      local share = scope.budget.limit > 0 and left / scope.budget.limit or 0
      if not out.left or left < out.left then out.left = left end
      if not out.share_left or share < out.share_left then out.share_left = share end
      if not b and not out.missing_scope then out.missing_scope = scope.id end
    end
  end
end

-- The budget with the least room for a request: what the answer says of it.
local function short_of(held, booked)
  local least, room
  for _, e in ipairs(held) do
    local r = math.max(0, e.limit - (e.s + booked - e.booked + e.h - e.held))
    if not least or r < room then least, room = e, r end
  end
  if not least then return nil end
  local kind, number = string.match(least.wid or least.b.wid, '^(.*):(%d+)$')
  local _, stop = window_bounds(kind, tonumber(number))
  local short = {scope = least.b.id, left = room}
  if stop >= 0 then short['until'] = stop end
  return short
end

-- Hold the first affordable of `costs` in every scope, all or nothing. Returns its index from 1,
-- or nil with a scope that has no ledger or with the budget that is short. A request keeps the
-- windows in which it was first held.
local function hold(scopes, costs, r, booked)
  local held, missing = {}, nil
  for _, scope in ipairs(scopes) do
    if scope.budget then
      local b = ledger_of(scope)
      if b then
        local e = {b = b, limit = scope.budget.limit, held = 0, booked = 0}
        for i, id in ipairs(r.sc) do
          if id == scope.id then e.i, e.wid, e.held, e.booked = i, r.wd[i], r.hd[i], r.bk[i] end
        end
        e.s, e.h = slot(b, e.wid)
        if not e.s then e.wid, e.held, e.s, e.h = nil, 0, b.s, b.h end
        held[#held + 1] = e
      else
        missing = missing or scope.id
      end
    end
  end
  local chosen
  for index, cost in ipairs(costs) do
    local fits = cost == 0 or not missing
    if fits and cost > 0 then
      for _, e in ipairs(held) do
        if e.s + booked - e.booked + e.h - e.held + cost > e.limit then fits = false break end
      end
    end
    if fits then chosen = index break end
  end
  if not chosen then return nil, missing, not missing and short_of(held, booked) or nil end
  local cost = costs[chosen]
  r.a, r.b = cost, booked
  for _, e in ipairs(held) do
    local spent, now_held = e.s + booked - e.booked, e.h - e.held + cost
    if spent ~= e.s or now_held ~= e.h then put(e.b, e.wid, spent, now_held) end
    local i = e.i or #r.sc + 1
    r.sc[i], r.wd[i], r.hd[i], r.bk[i] = e.b.id, e.wid or e.b.wid, cost, booked
  end
  return chosen, missing
end
