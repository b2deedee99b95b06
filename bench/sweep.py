"""Sweep specs: the TOML file that a person writes, checked as a whole.

File names inside a sweep file, in `plugins`, in `ids[file=…]` and in `weights=…` of a model, are
relative to the folder of that file; those on the command line are relative to the current folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as declared_field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from .dataset import Dataset
from .errors import InputError, Problems, UnknownNameError
from .modelspec import TIMM, ModelSpec, create_model_spec
from .plugin import explain
from .probes import chosen_probes
from .recipe import PLAIN, Recipe, TrainingSettings, create_recipe, recipe_of
from .registry import DATASETS, METHODS, load_plugin_files
from .scenario import IdsScenario, Scenario, create_scenario
from .spec_string import format_spec, parse_spec
from .tuned import Hyperparameters, read_tuned
from .tuning_settings import TuneSettings
from .ulira_settings import UliraSettings
from .unlearner import Unlearner

AUTO = "auto"
QUICKSTART = "quickstart"

T = TypeVar("T")
SpecText = Any  # a text or a table; `parse_spec` says so


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
        time_limit_s: Seconds after which a cell is stopped, and for every shadow model likewise;
            originals and retrained models are exempt, since everything is compared with them.
        save_models: Keep the unlearned models of the cells that are run in the store.
        probes: What to look for inside the unlearned models, which must be kept for it: `all`, or
            some of `recovery`, `centres`, `cka`, `relearn`, `divergence`; see `probes`.
        plugins: Python files with further methods or datasets.
        hyperparameters: A file of hyper-parameters that were found before, for the methods that it
            names; see `tuned`.
        training: Settings of the training loop.
        tune: Tune all methods before they are run, with the same number of trials each.
        ulira: The membership-inference attack: number of shadow models and how to score.
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
    probes: Annotated[tuple[str, ...], BeforeValidator(chosen_probes)] = ()
    plugins: Annotated[list[Path], BeforeValidator(_as_list)] = []
    hyperparameters: Path | None = None
    training: TrainingSettings = TrainingSettings()
    tune: TuneSettings | None = None
    ulira: UliraSettings = UliraSettings()

    @field_validator("probes")
    @classmethod
    def _models_are_kept(cls, probes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if probes and info.data.get("save_models") is False:
            raise ValueError(
                "probes look inside the unlearned models, which `save_models = false` does not "
                "keep; set it to true, or switch the probes off"
            )
        return probes


@dataclass(frozen=True)
class Sweep:
    """A sweep spec with every name looked up and every parameter checked."""

    spec: SweepSpec
    datasets: list[Dataset]
    models: list[ModelSpec]
    scenarios: list[Scenario]
    methods: list[Unlearner]
    recipes: list[Recipe | None]
    hyperparameters: Hyperparameters = declared_field(default_factory=Hyperparameters)

    def recipes_of(self, method: Unlearner) -> list[Recipe]:
        """The recipes that a method runs on; None in `recipes` stands for its own.

        Where nothing is trained, no penalty was: the checkpoint is what it is, a plain original.
        """
        training = self.spec.training
        own = recipe_of(method, training)
        if not training.epochs and own.fine_tuning is None:
            own = own.plain
        chosen = [recipe or own for recipe in self.recipes]
        return list({recipe.name: recipe for recipe in chosen}.values())


def read_sweep(
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    plugins: Iterable[Path] = (),
    epochs: int | None = None,
    shadows: int | None = None,
    tune: Mapping[str, Any] | None = None,
    problems: Problems | None = None,
) -> SweepSpec:
    """Read a sweep file, or the built-in quickstart, and lay options of the command line over it.

    Args:
        path: A TOML file, or the name of a sweep that comes with the package; None for the
            quickstart.
        overrides: Fields that replace those of the file.
        plugins: Plug-in files beside those of the file.
        epochs: Replaces the file's training epochs.
        shadows: Replaces the file's number of shadow models.
        tune: Laid over the file's settings of tuning.
        problems: Where to note fields that are wrong, which then hold what the quickstart has, so
            that the others can be checked too; without it, they are raised.

    Raises:
        InputError: If the file cannot be read; or for every field that is unknown, missing or
            not allowed, together.
    """
    if path is None:
        content = _built_in(QUICKSTART)
    elif str(path) in built_in_sweeps() and not path.exists():
        content = _built_in(str(path))
    else:
        content = _read_toml(path)
        content.setdefault("name", path.stem)
        _anchor(content, path.parent)
    content |= overrides or {}
    if plugins:
        listed = _as_list(content.get("plugins", []))
        content["plugins"] = [*listed, *plugins] if isinstance(listed, list) else listed
    for table, key, value in (("training", "epochs", epochs), ("ulira", "shadows", shadows)):
        if value is not None and isinstance(content.setdefault(table, {}), dict):
            content[table] = {**content[table], key: value}
    if tune is not None:
        own = content.get("tune")
        content["tune"] = {**own, **tune} if isinstance(own, dict) else dict(tune)
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        found = explain(error, f"sweep `{path or QUICKSTART}`", SweepSpec)
        if problems is None:
            raise found from None
        problems.note(found)
        wrong = {problem["loc"][0] for problem in error.errors()}
        right = {k: v for k, v in content.items() if k in SweepSpec.model_fields and k not in wrong}
        return SweepSpec.model_validate(_built_in(QUICKSTART) | right)


def resolve(spec: SweepSpec, problems: Problems | None = None) -> Sweep:
    """Look up every name and check every parameter.

    Args:
        spec: The sweep.
        problems: Where to note what is wrong, which is then left out; without it, it is raised.

    Raises:
        InputError: With one sentence for each thing that is wrong.
    """
    noted = Problems() if problems is None else problems

    def each(texts: Iterable[Any], create: Callable[[Any], T]) -> list[T]:
        made: list[T] = []
        for text in texts:
            with noted.noted():
                try:
                    made.append(create(text))
                except UnknownNameError:
                    if not missing:  # else it may well be in a plug-in that was not loaded
                        raise
        return made

    missing = Problems()
    with missing.noted():
        load_plugin_files(spec.plugins)
    with noted.noted():
        missing.raise_any()
    sweep = Sweep(
        spec,
        datasets=each(spec.datasets, DATASETS.create),
        models=each(spec.models, create_model_spec),
        scenarios=each(spec.scenarios, create_scenario),
        methods=each(spec.methods, METHODS.create),
        recipes=each(
            spec.recipes, lambda text: None if text == AUTO else create_recipe(text, spec.training)
        ),
    )
    if spec.hyperparameters is not None:
        with noted.noted():
            sweep = replace(
                sweep, hyperparameters=Hyperparameters(read_tuned(spec.hyperparameters))
            )
    for sentence in _contradictions(sweep):
        noted.note(InputError(sentence))
    if problems is None:
        noted.raise_any()
    return sweep


def _contradictions(sweep: Sweep) -> Iterator[str]:
    """What is wrong with parts that are each right by themselves."""
    if sweep.spec.tune is not None and sweep.spec.hyperparameters is not None:
        yield (
            f"`tune` would find hyper-parameters, but they are to be taken from "
            f"`{sweep.spec.hyperparameters}`; drop one of the two."
        )
    digests: dict[str, str] = {}
    for model in sweep.models:
        if model.weights is None:
            continue
        digest = model.weights.digest
        if digests.setdefault(str(model), digest) != digest:
            yield (
                f"two models would both be called `{model}`: their weights are different files of "
                "one name; rename one of them."
            )
    if sweep.spec.training.epochs:
        return
    for model in sweep.models:
        if model.weights is None:
            yield (
                f"`training.epochs` is 0, so nothing is trained, but the model `{model}` has no "
                "weights to start from; add `weights=FILE` to it, or train for at least 1 epoch."
            )
    if sweep.spec.ulira.shadows:
        yield (
            f"`training.epochs` is 0, so no shadow models can be trained, but U-LIRA asks for "
            f"{sweep.spec.ulira.shadows}; switch it off with `--shadows 0`, or train for at "
            "least 1 epoch."
        )
    for recipe in sweep.recipes:
        if recipe is not None and recipe.name != PLAIN and recipe.fine_tuning is None:
            yield (
                f"`training.epochs` is 0, so nothing is trained, and the recipe `{recipe.name}` "
                "would do nothing; use auto or plain, or train for at least 1 epoch."
            )


NO_SWEEPS = ("published.toml",)  # figures of papers


def built_in_sweeps() -> dict[str, str]:
    """The sweeps that come with the package: the first line of each, by name."""
    found = {}
    for file in resources.files(__package__).iterdir():
        if file.name.endswith(".toml") and file.name not in NO_SWEEPS:
            first = file.read_text("utf-8").partition("\n")[0]
            found[file.name.removesuffix(".toml")] = first.lstrip("# ")
    return dict(sorted(found.items()))


def _built_in(name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _anchor(content: dict[str, Any], folder: Path) -> None:
    """Make the file names of a sweep file relative to the current folder instead of to its own."""

    def plugin(name: Any) -> Any:  # noqa: ANN401
        return str(folder / name) if isinstance(name, str) else name

    def file_in(text: Any, kind: str, key: str) -> Any:  # noqa: ANN401
        try:
            spec = parse_spec(text, kind)
        except InputError:
            return text  # said when scenarios and models are looked up
        file = spec.params.get(key)
        is_file = spec.name == IdsScenario.name if kind == "scenario" else file != TIMM
        if not (is_file and isinstance(file, str) and file):
            return text
        path = str(folder / Path(file).expanduser())
        return format_spec(spec.name, {**spec.params, key: path})

    def scenario(text: Any) -> Any:  # noqa: ANN401
        return file_in(text, "scenario", "file")

    def model(text: Any) -> Any:  # noqa: ANN401
        return file_in(text, "model", "weights")

    if "hyperparameters" in content:
        content["hyperparameters"] = plugin(content["hyperparameters"])
    ulira = content.get("ulira")
    tables = [
        (content, "plugins", plugin),
        (content, "scenarios", scenario),
        (content, "models", model),
    ]
    for table, field, anchored in [*tables, (ulira, "stratify", scenario)]:
        values = _as_list(table.get(field)) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(values, list):
            table[field] = [anchored(value) for value in values]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(f"`{name}`" for name in built_in_sweeps())
        raise InputError(
            f"sweep file `{path}` does not exist, nor is it one of those that come with "
            f"unlearnbench: {names}."
        ) from None
    except OSError as error:
        raise InputError(f"sweep file `{path}` cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"sweep file `{path}` is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"sweep file `{path}` is not valid TOML: {error}.") from None
