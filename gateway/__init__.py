"""The gateway serves: the only package that may import `routers` and `backends`."""
