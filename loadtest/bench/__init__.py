"""The benchmark: what a request costs in CPU, against nginx and other gateways, in one run."""
