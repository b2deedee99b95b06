"""Mean and variance of every channel for every class.

They are small, are stored beside a model, and serve all later forget requests without any data.

Changes:
    1: first version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .batches import ExampleSet
from .channel_units import ChannelUnit, Units
from .errors import InputError
from .keys import canonical_json, digest_bytes
from .observe import observe
from .running_moments import RunningMoments

SCHEMA = "unlearnbench.class-statistics/1"
HEADER = "header"

Statistic = Literal["max", "mean", "rms"]


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """What a model's channels do on each class.

    Attributes:
        units: The groups of channels.
        left: Layers of the same kind whose channels cannot be damped, by name.
        statistic: What the activation of an example is reduced to over positions.
        mean: `(C, K)` float32 class means, by name of the unit's layer.
        var: `(C, K)` float32 class variances, likewise.
        count: `(C,)` int64 examples of each class.
        forgotten: Classes that were forgotten since they were measured.
        model: Fingerprint of the model that they are of.
    """

    units: tuple[ChannelUnit, ...]
    left: tuple[str, ...]
    statistic: Statistic
    mean: Mapping[str, Tensor]
    var: Mapping[str, Tensor]
    count: Tensor
    forgotten: tuple[int, ...]
    model: str

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.count)

    def check(self, model: nn.Module) -> None:
        """Make sure that they are of this model.

        Raises:
            InputError: If they are of another one.
        """
        if fingerprint(model) != self.model:
            raise InputError(
                f"these class statistics are of another model (`{self.model}`) than this one "
                f"(`{fingerprint(model)}`); measure them again."
            )

    def check_classes(self, classes: Sequence[int]) -> None:
        """Make sure that classes exist, are named once, and have not been forgotten.

        Raises:
            InputError: Naming the first that is wrong.
        """
        for place, label in enumerate(classes):
            if not 0 <= label < self.num_classes:
                wrong = f"does not exist; allowed: 0 to {self.num_classes - 1}"
            elif label in self.forgotten:
                wrong = "has been forgotten already"
            elif label in classes[:place]:
                wrong = "is named twice"
            else:
                continue
            raise InputError(f"class {label} {wrong}.")

    def of(self, model: nn.Module) -> ClassStatistics:
        """The same, said to be of this model."""
        return replace(self, model=fingerprint(model))

    def damped(self, gates: Mapping[str, Tensor], classes: Sequence[int]) -> ClassStatistics:
        """The statistics after channels were damped, without measuring again; of no model yet.

        What damped channels do to later ones is not followed.

        Args:
            gates: `(K,)` factors by name of the unit's layer.
            classes: What was forgotten.
        """
        return replace(
            self,
            mean={name: mean * gates[name] for name, mean in self.mean.items()},
            var={name: var * gates[name].square() for name, var in self.var.items()},
            forgotten=(*self.forgotten, *classes),
            model="",
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Named tensors that hold everything; `header` is JSON as uint8."""
        header = {
            "schema": SCHEMA,
            "units": [list(unit) for unit in self.units],
            "left": list(self.left),
            "statistic": self.statistic,
            "forgotten": list(self.forgotten),
            "model": self.model,
        }
        text = bytearray(json.dumps(header, sort_keys=True).encode())
        return {
            HEADER: torch.frombuffer(text, dtype=torch.uint8),
            "count": self.count,
            **{f"mean.{name}": tensor for name, tensor in self.mean.items()},
            **{f"var.{name}": tensor for name, tensor in self.var.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ClassStatistics:
        """Read what `to_tensors` gave.

        Raises:
            InputError: If these are no class statistics, or those of another version.
        """
        header = _header(tensors)
        try:
            units = tuple(ChannelUnit(*unit) for unit in header["units"])
            return cls(
                units=units,
                left=tuple(header["left"]),
                statistic=header["statistic"],
                mean={unit.layer: tensors[f"mean.{unit.layer}"] for unit in units},
                var={unit.layer: tensors[f"var.{unit.layer}"] for unit in units},
                count=tensors["count"],
                forgotten=tuple(header["forgotten"]),
                model=header["model"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"these class statistics are not whole ({error}); measure them again."
            ) from None

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({name: t.cpu().contiguous() for name, t in self.to_tensors().items()}, path)

    @classmethod
    def load(cls, path: Path) -> ClassStatistics:
        """Read a file that `save` wrote.

        Raises:
            InputError: If it is missing, damaged, no such file, or of another version.
        """
        try:
            return cls.from_tensors(load_file(path))
        except FileNotFoundError:
            raise InputError(f"there are no class statistics at `{path}`.") from None
        except (OSError, SafetensorError) as error:
            raise InputError(f"`{path}` cannot be read as class statistics: {error}.") from None


def measure_classes(
    model: nn.Module,
    examples: ExampleSet,
    num_classes: int,
    units: Units,
    statistic: Statistic,
) -> ClassStatistics:
    """Pass examples through once, without gradients, and note what the channels do.

    Args:
        model: In any mode; left in it.
        examples: Examples of all classes, served with the evaluation transform.
        num_classes: C.
        units: Groups of channels, and the layers without.
        statistic: Reduction over the positions of an activation.
    """
    device = examples.ids.device
    labels = examples.labels
    moments = {u.layer: RunningMoments(num_classes, u.channels, device) for u in units.found}

    def watch(unit: ChannelUnit) -> Callable[[Tensor], None]:
        seen = 0

        def add(activation: Tensor) -> None:
            nonlocal seen
            values = _reduce(unit.values(activation), statistic)
            moments[unit.layer].update(values, labels[seen : seen + len(values)])
            seen += len(values)

        return add

    watches = {model.get_submodule(unit.output): watch(unit) for unit in units.found}
    observe(model, examples, outputs=watches)
    return ClassStatistics(
        units=tuple(units.found),
        left=tuple(units.left),
        statistic=statistic,
        mean={name: found.mean.float() for name, found in moments.items()},
        var={name: found.var.float() for name, found in moments.items()},
        count=torch.bincount(labels, minlength=num_classes),
        forgotten=(),
        model=fingerprint(model),
    )


def fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits by which a trained model can be told from any other.

    They depend on names, shapes, all vectors, and a value of every row and every column of every
    matrix and kernel, of each group by itself: some milliseconds, and no model that was trained or
    damped differently has the same.
    """
    state = [(name, t) for name, t in model.state_dict().items() if t.is_floating_point()]
    grouped = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    values = []
    for name, tensor in state:
        inner = (0,) * (tensor.dim() - 2)
        if tensor.dim() < 2:
            values.append(tensor.reshape(-1))
        elif name in grouped:
            values.append(tensor[(slice(None), slice(None), *inner)].reshape(-1))
        else:
            values += [tensor[(slice(None), 0, *inner)], tensor[(0, slice(None), *inner)]]
    numbers = torch.cat([value.detach().float() for value in values]).cpu().numpy()
    shapes = canonical_json([[name, list(t.shape)] for name, t in state])
    return digest_bytes(shapes.encode(), numbers.tobytes())[:16]


def _reduce(values: Tensor, statistic: Statistic) -> Tensor:
    """`(N, positions, K)` to `(N, K)`."""
    if statistic == "max":
        return values.amax(1)
    if statistic == "mean":
        return values.mean(1)
    return values.square().mean(1).sqrt()


def _header(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(tensors[HEADER].cpu().numpy().tobytes())
        schema = header["schema"]
    except (KeyError, TypeError, ValueError):
        raise InputError("these tensors are no class statistics; measure them again.") from None
    if schema != SCHEMA:
        raise InputError(
            f"these class statistics are of another version (`{schema}`); this one reads "
            f"`{SCHEMA}`: measure them again."
        )
    return header
