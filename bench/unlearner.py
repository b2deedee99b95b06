"""The interface of an unlearning method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError

from .errors import PluginError
from .plugin import Plugin, check_known_failures
from .ranges import Range

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .task import UnlearningTask
    from .taskinfo import TaskInfo

Need = Literal["forget", "retain", "training", "validation", "gradients", "history"]
Scope = Literal["class", "sample"]


class FineTuning(NamedTuple):
    """How a trained model goes on with a penalty.

    Attributes:
        epochs: Passes over the training set.
        lr: Peak step size.
    """

    epochs: int
    lr: float


class Unlearner(Plugin, ABC):
    """An unlearning method; its fields are its hyper-parameters.

    A subclass gives a name, says what it needs and implements `unlearn`. What it does not
    declare is withheld: touching it raises `UndeclaredNeedError`, and without `"gradients"` the
    method runs with gradients off. The test set is never reachable.

    Attributes:
        name: Registered name, kebab-case, equal to the file's name.
        reference: Where the method comes from: authors, venue or arXiv number.
        needs: What `unlearn` and `prepare` may touch. `"forget"`, `"retain"` and `"validation"`
            are example sets of the task; `"training"` is the whole training set and is open to
            `prepare` only; `"gradients"` switches them on; `"history"`, also in `prepare` only,
            lets it see the original's training step by step, together with `"training"`.
        scope: Forget sets it serves: `"class"` for whole classes, `"sample"` for any other.
        exact: Whether the result is distributed as a retrained model by construction.
        recipe: Name of the recipe that `training_penalty` makes, or None. A method with a
            recipe runs on originals of that recipe unless the sweep says otherwise.
        penalty_fields: The hyper-parameters that `training_penalty` depends on.
        penalty_version: Raise it when the code of `training_penalty` changes what it computes;
            originals trained with the former version are then no longer used.
        prepare_fields: The hyper-parameters that `prepare` depends on; None means all.
        variant_of: Name of the method whose recipe and preparation a variant uses as they are, so
            that both are made once for all of them. It holds for the class that says so, not for
            those that derive from it.

    Example:
        >>> from unlearnbench.bench import Unlearner
        >>> class Forgetful(Unlearner):
        ...     '''Do nothing at all.'''
        ...     name = "forgetful"
        ...     reference = "none"
        ...     strength: float = 0.5
        ...     def unlearn(self, model, task):
        ...         return model
        >>> Forgetful(strength=0.25).spec
        'forgetful[strength=0.25]'
    """

    kind: ClassVar[str] = "method"
    reference: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    scope: ClassVar[frozenset[Scope]] = frozenset({"class", "sample"})
    exact: ClassVar[bool] = False
    recipe: ClassVar[str | None] = None
    penalty_fields: ClassVar[frozenset[str]] = frozenset()
    penalty_version: ClassVar[int] = 1
    prepare_fields: ClassVar[frozenset[str] | None] = None
    variant_of: ClassVar[str | None] = None

    @abstractmethod
    def unlearn(self, model: nn.Module, task: UnlearningTask) -> nn.Module:
        """Return the unlearned model.

        It never logs, times, evaluates on test data, saves, picks a device or touches global
        random state; `task.rng` is its only source of randomness.

        Args:
            model: Private copy of the original on `task.device`, in eval mode; may be modified
                and returned.
            task: The forget request, and the declared sets and tools.
        """

    def prepare(self, model: nn.Module, task: UnlearningTask) -> Mapping[str, Tensor] | None:
        """Compute what needs no forget request, such as statistics of every class.

        Called once for an original; the result is stored beside it and handed to every later
        request as `task.prepared`. Timed apart (`prepare_s`).

        Args:
            model: Private copy of the original.
            task: A task without a forget request; `task.training` is open if declared.

        Returns:
            Named tensors, or None when there is nothing to prepare (the default).
        """
        return None

    @property
    def prepare_params(self) -> dict[str, Any]:
        """The hyper-parameters that `prepare` depends on, as plain JSON values."""
        fields = self.prepare_fields
        return {k: v for k, v in self.params.items() if fields is None or k in fields}

    def training_penalty(self, model: nn.Module) -> Tensor:
        """Term added to the loss while an original of this method's recipe is trained.

        Args:
            model: The model in training.

        Returns:
            Scalar tensor that carries gradients.
        """
        raise PluginError(f"method `{self.name}` has no training penalty.")

    def penalty_weight(self, progress: float) -> float:
        """Factor of the penalty in the course of training; where it is 0, none is computed.

        Args:
            progress: Share of the epochs that are done, in [0, 1).
        """
        return 1.0

    @property
    def fine_tuning(self) -> FineTuning | None:
        """How a plain original goes on with the penalty; None to train with it from scratch.

        Retrained and shadow models are then trained plain and go on likewise.
        """
        return None

    def undecayed(self, model: nn.Module) -> list[Tensor]:
        """Parameters that the penalty holds in place of weight decay, in training with it."""
        return []

    @classmethod
    def family(cls) -> str:
        """Name of the method that makes the recipe and prepares: its own, unless a variant."""
        return vars(cls).get("variant_of") or cls.name

    def unsupported_reasons(self, task: TaskInfo) -> list[str]:
        """Return every reason why the method does not serve this task; empty if it does.

        An override calls `super()` and adds its own reasons. Nothing is trained or
        loaded when it is asked: only the facts of the task can be read.
        """
        kind: Scope = "class" if task.forget_classes else "sample"
        if kind in self.scope:
            return []
        if kind == "sample":
            return ["forgets whole classes only, and this forget set is not one"]
        return ["does not forget whole classes"]


def check_declaration(method: type[Unlearner]) -> None:
    """Refuse a method class whose declarations are missing or misspelt.

    Raises:
        PluginError: One sentence that says what to change.
    """
    for attribute in ("name", "reference"):
        if not isinstance(getattr(method, attribute, None), str):
            raise PluginError(f"method class `{method.__name__}` needs a `{attribute}`.")
    for attribute, allowed in (("needs", get_args(Need)), ("scope", get_args(Scope))):
        wrong = set(getattr(method, attribute)) - set(allowed)
        if wrong:
            raise PluginError(
                f"method `{method.name}` declares {attribute} {sorted(wrong)}; "
                f"allowed: {', '.join(allowed)}."
            )
    for attribute in ("penalty_fields", "prepare_fields"):
        wrong = set(getattr(method, attribute) or ()) - set(method.model_fields)
        if wrong:
            raise PluginError(
                f"method `{method.name}` names {sorted(wrong)} in `{attribute}`, "
                f"which are not among its fields: {', '.join(method.model_fields)}."
            )
    check_known_failures(method)
    _check_ranges(method)
    if "variant_of" in vars(method):
        for own in ("prepare", "training_penalty"):
            if own in vars(method):
                raise PluginError(
                    f"method `{method.name}` is a variant of `{method.variant_of}`, whose `{own}` "
                    "it uses; it cannot have its own."
                )
        return
    if (method.recipe is not None) != (method.training_penalty is not Unlearner.training_penalty):
        raise PluginError(
            f"method `{method.name}` must give both `recipe` and `training_penalty`, or neither."
        )


def _check_ranges(method: type[Unlearner]) -> None:
    """Refuse search ranges that make no sense, or whose ends the field itself refuses."""
    from .search_space import declared  # which knows methods by their interface

    for dimension in declared(method):
        info = method.model_fields[dimension.name]
        if not isinstance(dimension.values, Range):
            continue
        field: Any = info.annotation
        if info.metadata:
            field = Annotated[field, *info.metadata]
        for end in (dimension.values.low, dimension.values.high):
            try:
                TypeAdapter(field).validate_python(end)
            except ValidationError as error:
                wish = error.errors()[0]["msg"].removeprefix("Input ")
                raise PluginError(
                    f"method `{method.name}`: the range of `{dimension.name}` ends at {end:g}, "
                    f"which `{dimension.name}` refuses: it {wish}."
                ) from None
