"""Load: a scripted upstream, scenarios, and the benchmark."""
