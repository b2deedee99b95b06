"""Recipes: how originals, retrained models and shadows are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import InputError, UnknownNameError
from .registry import METHODS
from .spec_string import format_spec, parse_spec
from .unlearner import FineTuning, Unlearner

PLAIN = "plain"


class TrainingSettings(BaseModel):
    """Settings of the training loop, shared by all recipes of a sweep.

    Attributes:
        epochs: Passes over the training set. 0, for models with weights only: the original is the
            checkpoint as it came, there is no retrained model and there are no shadow models.
        batch_size: Examples a step.
        optimizer: `sgd` (Nesterov momentum) or `adamw`.
        lr: Peak step size.
        momentum: Of SGD.
        weight_decay: Applied to all parameters.
        schedule: `cosine` after a linear warm-up, or `constant`.
        warmup_frac: Share of the steps spent warming up.
        label_smoothing: Of the cross-entropy.
        augment: Random crop and flip, as the dataset allows.
        clip_norm: Largest norm of the gradient; None for no limit.
        precision: `fp32`, or `bf16` autocast while training. Evaluation is always fp32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=0)] = 30
    batch_size: Annotated[int, Field(ge=1)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_frac: Annotated[float, Field(ge=0, lt=1)] = 0.15
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Recipe:
    """Training settings, and the penalty of a method where there is one.

    Attributes:
        name: `plain`, or the penalty's recipe name with the parameters that differ from default.
        settings: Settings of the training loop.
        penalty: Method whose `training_penalty` is added to the loss, or None.
    """

    name: str
    settings: TrainingSettings
    penalty: Unlearner | None = None

    @property
    def fine_tuning(self) -> FineTuning | None:
        """How a plain model goes on with the penalty; None if it is trained with it at once."""
        return None if self.penalty is None else self.penalty.fine_tuning

    @property
    def plain(self) -> Recipe:
        """The same settings without a penalty."""
        return Recipe(PLAIN, self.settings)

    def describe(self) -> dict[str, Any]:
        """All that determines a model trained with this recipe, apart from data and seed."""
        described: dict[str, Any] = self.settings.model_dump(mode="json")
        if self.penalty is not None:
            fields = {key: self.penalty.params[key] for key in self.penalty.penalty_fields}
            described["penalty"] = {
                "method": self.penalty.name,
                "version": self.penalty.penalty_version,
                **fields,
            }
        return described


def is_plain(name: str) -> bool:
    """Whether a recipe has no penalty, by its name or label."""
    return name.partition("[")[0] == PLAIN


def recipe_of(method: Unlearner, settings: TrainingSettings) -> Recipe:
    """The recipe that a method asks for: its own penalty's, or plain."""
    if method.recipe is None:
        return Recipe(PLAIN, settings)
    own = {key: method.params[key] for key in method.penalty_fields}
    variant = method.family() != method.name
    maker = METHODS.get(method.family()) if variant else type(method)
    return _penalised(method.recipe, maker, own, settings)


def create_recipe(text: str, settings: TrainingSettings) -> Recipe:
    """Build a recipe from `plain` or `name[key=value,…]`, e.g. `orthogonal[ortho_lambda=0.01]`.

    Raises:
        InputError: If no method makes a recipe of that name, or a parameter is wrong.
    """
    spec = parse_spec(text, "recipe")
    if spec.name == PLAIN:
        if spec.params:
            raise InputError(f"recipe `{PLAIN}` has no parameters; got `{text}`.")
        return Recipe(PLAIN, settings)
    makers: dict[str, type[Unlearner]] = {}
    for cls in METHODS.classes():
        if cls.recipe is None or cls.family() != cls.name:
            continue
        other = makers.setdefault(cls.recipe, cls)
        if other is not cls and cls.recipe == spec.name:
            raise InputError(
                f"recipe `{spec.name}` is made by two methods, `{other.name}` and `{cls.name}`; "
                "rename one, or declare one as a variant of the other (`variant_of`)."
            )
    if spec.name not in makers:
        raise UnknownNameError("recipe", spec.name, [PLAIN, *makers])
    maker = makers[spec.name]
    unknown = set(spec.params) - maker.penalty_fields
    if unknown:
        raise UnknownNameError(
            f"parameter of recipe `{spec.name}`:", sorted(unknown)[0], maker.penalty_fields
        )
    return _penalised(spec.name, maker, spec.params, settings)


def _penalised(
    name: str, maker: type[Unlearner], fields: dict[str, Any], settings: TrainingSettings
) -> Recipe:
    """Build the penalty with nothing but the fields that it depends on."""
    penalty = maker.create(fields)
    default = {key: maker.model_fields[key].default for key in maker.penalty_fields}
    changed = {k: v for k, v in penalty.params.items() if k in fields and v != default[k]}
    return Recipe(format_spec(name, changed), settings, penalty)
