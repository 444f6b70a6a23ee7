"""`tollhouse demo`: the whole path on one machine, shown by a tour of real requests."""
