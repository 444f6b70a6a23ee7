"""The parts of the upstream HTTP client. Import them through `backends.http` only."""
