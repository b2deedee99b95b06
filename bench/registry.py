"""Where methods and datasets are found by name.

Ours are found by scanning their room; others come from the entry-point groups
`unlearnbench.methods` and `unlearnbench.datasets`, or from a file (`--plugin my_method.py`).
A broken file of ours raises at once. A broken plug-in of somebody else's is kept in `broken`
with its error, is shown in listings, and raises only when it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from .dataset import Dataset, check_dataset
from .errors import InputError, PluginError, Problems, UnknownNameError, describe
from .keys import digest_bytes
from .plugin import Plugin
from .spec_string import parse_spec
from .unlearner import Unlearner, check_declaration

P = TypeVar("P", bound=Plugin)


class Registry(Generic[P]):
    """Plug-ins of one kind by name.

    Args:
        kind: What they are, for messages: `method` or `dataset`.
        base: Class that they derive from.
        room: Package whose modules are scanned; also the entry-point group.
        check: Called with every class that is added; raises `PluginError`.
    """

    def __init__(
        self, kind: str, base: type[P], room: str, check: Callable[[type[P]], None] | None = None
    ) -> None:
        self.kind = kind
        self.base = base
        self.room = room
        self.broken: dict[str, str] = {}
        self._check = check
        self._classes: dict[str, type[P]] = {}
        self._origins: dict[str, str] = {}
        self._scanned = False

    def add(self, cls: type[P], origin: str) -> None:
        """Register a class.

        Raises:
            PluginError: If its declarations are wrong, or the name is taken by another class.
        """
        if self._check is not None:
            self._check(cls)
        taken = self._classes.get(cls.name)
        if taken is cls:
            return
        if taken is not None:
            raise PluginError(
                f"two {self.kind}s are called `{cls.name}`: {self._origins[cls.name]} and {origin}."
            )
        self._classes[cls.name] = cls
        self._origins[cls.name] = origin

    def add_module(self, module: ModuleType, origin: str) -> int:
        """Register every concrete class that a module defines; return how many."""
        found = [
            cls
            for _, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, self.base)
            and cls.__module__ == module.__name__
            and not inspect.isabstract(cls)
            and not cls.__name__.startswith("_")
        ]
        for cls in found:
            self.add(cls, origin)
        return len(found)

    def names(self) -> list[str]:
        """All names, sorted."""
        self._scan()
        return sorted(self._classes)

    def classes(self) -> list[type[P]]:
        """All classes, sorted by name."""
        return [self._classes[name] for name in self.names()]

    def get(self, name: str) -> type[P]:
        """Return the class of that name.

        Raises:
            InputError: If it belongs to a plug-in that could not be loaded.
            UnknownNameError: If there is none.
        """
        self._scan()
        if name in self._classes:
            return self._classes[name]
        if name in self.broken:
            raise InputError(f"{self.kind} `{name}` cannot be loaded: {self.broken[name]}.")
        raise UnknownNameError(self.kind, name, self._classes)

    def create(self, text: str | Mapping[str, Any]) -> P:
        """Build a plug-in from `name[key=value,…]` or a table with a `name`.

        Raises:
            InputError: If the name, a parameter or the notation is wrong.
        """
        spec = parse_spec(text, self.kind)
        return self.get(spec.name).create(spec.params)

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        package = importlib.import_module(self.room)
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{self.room}.{info.name}")
            self.add_module(module, f"{self.room}.{info.name}")
        for entry in importlib.metadata.entry_points(group=self.room):
            try:
                self._add_entry_point(entry)
            except (Exception, SystemExit) as error:  # somebody else's code may raise anything
                self.broken[entry.name] = _why(error)

    def _add_entry_point(self, entry: importlib.metadata.EntryPoint) -> None:
        loaded = entry.load()
        origin = f"{entry.dist.name if entry.dist else 'unknown distribution'} ({entry.value})"
        if inspect.ismodule(loaded):
            if not self.add_module(loaded, origin):
                raise PluginError(f"{entry.value} defines no {self.kind}")
        elif inspect.isclass(loaded) and issubclass(loaded, self.base):
            self.add(loaded, origin)
        else:
            raise PluginError(f"{entry.value} is neither a module nor a {self.kind} class")


METHODS: Registry[Unlearner] = Registry(
    "method",
    Unlearner,  # type: ignore[type-abstract]
    "unlearnbench.methods",
    check_declaration,
)
DATASETS: Registry[Dataset] = Registry(
    "dataset",
    Dataset,  # type: ignore[type-abstract]
    "unlearnbench.datasets",
    check_dataset,
)


def load_plugin_files(paths: Iterable[str | Path]) -> None:
    """Register the methods and datasets that Python files define (`--plugin`).

    Raises:
        InputError: For every file that is missing, cannot be imported, defines nothing, or takes
            a name that is in use, together.
    """
    problems = Problems()
    for path in map(Path, paths):
        with problems.noted():
            _load_plugin_file(path)
    problems.raise_any()


def classes_of_file(path: str | Path) -> list[type[Unlearner] | type[Dataset]]:
    """Register what a Python file defines, and return it, methods first.

    Raises:
        InputError: As `load_plugin_files`.
    """
    load_plugin_files([path])
    name = _module_name(Path(path), Path(path).read_bytes())
    found: list[type[Unlearner] | type[Dataset]] = []
    found += [cls for cls in METHODS.classes() if cls.__module__ == name]
    found += [cls for cls in DATASETS.classes() if cls.__module__ == name]
    return found


def _module_name(path: Path, source: bytes) -> str:
    return f"unlearnbench_plugin_{path.stem}_{digest_bytes(source)[:10]}"


def _load_plugin_file(path: Path) -> None:
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"plug-in file `{path}` does not exist.") from None
    except OSError as error:
        raise InputError(f"plug-in file `{path}` cannot be read: {error.strerror}.") from None
    name = _module_name(path, source)
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"plug-in file `{path}` is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    METHODS.names(), DATASETS.names()  # ours first, so that a clash names the newcomer
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        added = METHODS.add_module(module, str(path)) + DATASETS.add_module(module, str(path))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"cannot load plug-in file `{path}`: {_why(error)}.") from error
    if not added:
        del sys.modules[name]
        raise InputError(f"plug-in file `{path}` defines no method and no dataset.")


def _why(error: BaseException) -> str:
    """Why a plug-in cannot be loaded, without a full stop."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the module `{error.name}`, which is not installed"
    return describe(error)
