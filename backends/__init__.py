"""Backends speak to models. This package imports neither `gateway` nor `routers`."""
