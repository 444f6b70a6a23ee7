"""Other gateways, for comparison: see the README beside this file."""
