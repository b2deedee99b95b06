from __future__ import annotations

import pytest
import torch

from .commands import plugins_forgotten


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks gain nothing from threads, and results do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def plugin(tmp_path):
    """Write a plug-in file; what is loaded from it is forgotten after the test.

    Called again with the same name, it edits the file and forgets the former content.
    """
    with plugins_forgotten() as forget:

        def write(source, name="plugin.py"):
            forget()
            path = tmp_path / name
            path.write_text(source)
            return path

        yield write
