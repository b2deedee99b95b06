"""Loaded once by the fork server, so that a worker begins with everything imported."""

from __future__ import annotations

import sklearn.linear_model
import sklearn.model_selection
import sklearn.svm

from . import attack, bank_facts, cell, original, scoring, shadow
from .registry import METHODS

METHODS.names()

__all__ = ["attack", "bank_facts", "cell", "original", "scoring", "shadow", "sklearn"]
