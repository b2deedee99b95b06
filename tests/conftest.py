from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from .commands import plugins_forgotten


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and results do not depend on the machine."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:  # sweeps in this process set the number again
        patch.setattr("unlearnbench.bench.runner.cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory):
    """One MLflow database for a file of tests, since it takes a second to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


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
