"""Sweep specs: the TOML file that a person writes, checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .dataset import Dataset
from .errors import InputError, collect
from .modelspec import ModelSpec, create_model_spec
from .plugin import explain
from .recipe import Recipe, TrainingSettings, create_recipe, recipe_of
from .registry import DATASETS, METHODS, load_plugin_files
from .scenario import Scenario, create_scenario
from .unlearner import Unlearner

AUTO = "auto"
QUICKSTART = "quickstart"

T = TypeVar("T")
SpecText = str | dict[str, Any]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, (str, dict)) else value


def _as_seeds(value: object) -> object:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


Specs = Annotated[list[SpecText], BeforeValidator(_as_list), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]


class SweepSpec(BaseModel):
    """What a sweep file may say; each list is crossed with the others.

    Attributes:
        name: Names the output folder and the MLflow experiment.
        datasets: Datasets as `name[key=value,…]`.
        models: timm architectures likewise.
        scenarios: Scenarios likewise.
        methods: Methods likewise.
        recipes: `auto` runs each method on the recipe that it asks for; `plain` or a recipe's
            name runs all methods on originals of that recipe.
        seeds: A list, or a number n for the seeds 0 to n - 1.
        validation_fraction: Share of every class held out of the training set.
        time_limit_s: Seconds after which a cell is stopped; originals and retrained models are
            exempt, since everything is compared with them.
        save_models: Keep the unlearned models in the store.
        plugins: Python files with further methods or datasets.
        training: Settings of the training loop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    datasets: Specs
    models: Specs
    scenarios: Specs
    methods: Specs
    recipes: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)] = [AUTO]
    seeds: Annotated[list[Seed], BeforeValidator(_as_seeds), Field(min_length=1)] = [0]
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    save_models: bool = True
    plugins: list[Path] = []
    training: TrainingSettings = TrainingSettings()


@dataclass(frozen=True)
class Sweep:
    """A sweep spec with every name looked up and every parameter checked."""

    spec: SweepSpec
    datasets: list[Dataset]
    models: list[ModelSpec]
    scenarios: list[Scenario]
    methods: list[Unlearner]
    recipes: list[Recipe | None]

    def recipes_of(self, method: Unlearner) -> list[Recipe]:
        """The recipes that a method runs on; None in `recipes` stands for its own."""
        chosen = [r or recipe_of(method, self.spec.training) for r in self.recipes]
        return list({recipe.name: recipe for recipe in chosen}.values())


def read_sweep(
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    plugins: Iterable[Path] = (),
    epochs: int | None = None,
) -> SweepSpec:
    """Read a sweep file, or the built-in quickstart, and lay options of the command line over it.

    Args:
        path: A TOML file; None for the quickstart.
        overrides: Fields that replace those of the file.
        plugins: Plug-in files beside those of the file.
        epochs: Replaces the file's training epochs.

    Raises:
        InputError: For every field that is unknown, missing or not allowed, together.
    """
    if path is None:
        text = resources.files(__package__).joinpath(f"{QUICKSTART}.toml").read_text("utf-8")
        content = tomllib.loads(text)
    else:
        content = _read_toml(path)
        content.setdefault("name", path.stem)
        # file names inside a sweep file are relative to the file
        content["plugins"] = [
            str(path.parent / plugin) if isinstance(plugin, str) else plugin
            for plugin in content.get("plugins", [])
        ]
    content |= overrides or {}
    if plugins:
        content["plugins"] = [*content.get("plugins", []), *plugins]
    if epochs is not None and isinstance(content.setdefault("training", {}), dict):
        content["training"] = {**content["training"], "epochs": epochs}
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        raise explain(error, f"sweep `{path or QUICKSTART}`", SweepSpec) from None


def resolve(spec: SweepSpec) -> Sweep:
    """Look up every name and check every parameter.

    Raises:
        InputError: With one sentence for each thing that is wrong.
    """
    load_plugin_files(spec.plugins)
    problems: list[InputError] = []

    def each(texts: Iterable[Any], create: Callable[[Any], T]) -> list[T]:
        made: list[T] = []
        for text in texts:
            try:
                made.append(create(text))
            except InputError as error:
                problems.append(error)
        return made

    sweep = Sweep(
        spec,
        datasets=each(spec.datasets, DATASETS.create),
        models=each(spec.models, create_model_spec),
        scenarios=each(spec.scenarios, create_scenario),
        methods=each(spec.methods, METHODS.create),
        recipes=each(spec.recipes,
                     lambda text: None if text == AUTO else create_recipe(text, spec.training)),
    )
    error = collect(*problems)
    if error is not None:
        raise error
    return sweep


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"sweep file `{path}` does not exist.") from None
    except OSError as error:
        raise InputError(f"sweep file `{path}` cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"sweep file `{path}` is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"sweep file `{path}` is not valid TOML: {error}.") from None
