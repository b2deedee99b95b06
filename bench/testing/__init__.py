"""The contract that every plug-in keeps, as named checks; ours and other people's run it alike.

from unlearnbench.bench.testing import contract

test_contract = contract("my-method")
"""

from __future__ import annotations

from .check import Check, Result, checks_of
from .suite import check_plugin, contract

__all__ = ["Check", "Result", "check_plugin", "checks_of", "contract"]
