"""Ways to call the command line, as a person does and inside the test's own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from unlearnbench.bench import DATASETS, METHODS
from unlearnbench.bench.cli import cli

PROGRAM = Path(sysconfig.get_path("scripts")) / "unlearnbench"
NARROW = "resnet18[layers=[1,1,1,1],channels=[8,8,16,16],stem_type=deep,stem_width=8]"
TINY = "synthetic[channels=1,classes=4,test_per_class=15,train_per_class=30]"

SWEEP = f"""
datasets = ["digits"]
models = ["{NARROW}"]
scenarios = ["class[classes=[3]]", "random[fraction=0.1]"]
methods = ["finetune[epochs=1]", "osp", "head-mask"]
seeds = 2

[training]
epochs = 3
batch_size = 128
"""

TOY = f"""
name = "toy"
datasets = ["{TINY}"]
models = ["{NARROW}"]
scenarios = ["class[classes=[0]]"]
methods = ["identity"]

[training]
epochs = 2
batch_size = 32
lr = 0.05
"""


def environment(**changes: str) -> dict[str, str]:
    """Variables of a clean shell: nothing that moves folders, servers or warnings."""
    dropped = ("UNLEARNBENCH_", "MLFLOW_", "PYTEST_", "PYTHONWARNINGS")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(dropped) and not name.lower().endswith("_proxy")
    }
    return kept | {"COLUMNS": "100"} | changes


def shell(*args: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `unlearnbench ARGS` in a process of its own."""
    return subprocess.run(
        [str(PROGRAM), *map(str, args)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(*args: object, cwd: Path) -> subprocess.Popen[str]:
    """Start `unlearnbench ARGS` as the leader of a session, to which all its processes belong."""
    return subprocess.Popen(
        [str(PROGRAM), *map(str, args)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=interruptible,
    )


def interruptible() -> None:
    """Make a new process heed Ctrl-C, which a shell has its background jobs ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def call(*args: object) -> Result:
    """Run `unlearnbench ARGS` in this process; what goes to stderr is kept apart."""
    result = CliRunner().invoke(cli, list(map(str, args)), prog_name="unlearnbench")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def modules_loaded_by(*args: str, cwd: Path) -> set[str]:
    """Top-level modules that a successful `unlearnbench ARGS` leaves loaded."""
    code = (
        "import sys\n"
        "from unlearnbench.bench.cli import cli\n"
        "try:\n"
        f"    cli({list(args)!r}, prog_name='unlearnbench')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('\\n', *{name.split('.')[0] for name in sys.modules})\n"
    )
    return set(python(code, cwd).stdout.splitlines()[-1].split())


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which has to end well."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        preexec_fn=interruptible,
    )


def artifacts(store: Path) -> dict[str, int]:
    """Every artefact of a store, as `kind/key`, with the time at which it was written."""
    return {
        f"{path.parents[2].name}/{path.parent.name}": path.stat().st_mtime_ns
        for path in store.glob("artifacts/*/*/*/meta.json")
    }


@contextmanager
def plugins_forgotten() -> Iterator[Callable[[], None]]:
    """Forget, at the end and whenever called, what plug-in files have registered since."""
    before = [(registry, registry.classes()) for registry in (METHODS, DATASETS)]

    def forget() -> None:
        for registry, classes in before:
            registry._classes = {cls.name: cls for cls in classes}
        for name in [name for name in sys.modules if name.startswith("unlearnbench_plugin_")]:
            del sys.modules[name]

    try:
        yield forget
    finally:
        forget()
