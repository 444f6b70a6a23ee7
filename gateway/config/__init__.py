"""The configuration: types, loader, schema."""

from gateway.config.errors import ConfigError
from gateway.config.load import load_config, parse_config, schema
from gateway.config.model import Config

__all__ = ["Config", "ConfigError", "load_config", "parse_config", "schema"]
