-- What is spent and held in the current window.
local b = book_of(req.id)
if b.k ~= req.kind then return cmsgpack.pack({missing = true}) end
local from, to = window_bounds(b.k, b.w)
return cmsgpack.pack({missing = false, spent = b.s, held = b.h, start = from, stop = to})
