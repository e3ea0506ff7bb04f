"""The version that is running; looked up once, because finding it reads files."""

from importlib import metadata

VERSION = metadata.version("shardbus")
