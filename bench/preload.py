"""Loaded once by the fork server, so that a worker begins with everything imported."""

from __future__ import annotations

from . import cell
from .registry import METHODS

METHODS.names()

__all__ = ["cell"]
