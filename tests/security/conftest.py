"""The world of `world.py`, for every file here."""

from world import world

__all__ = ["world"]
