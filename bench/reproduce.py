"""The sweep file that makes one row of the leaderboard again."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from .errors import InputError
from .probes import PROBES
from .recipe import TrainingSettings
from .record import Record
from .scenario import IdsScenario
from .spec_string import format_spec, parse_spec
from .tracking_uri import slug

FILE = "again.toml"
WIDTH = 98
SAME = ("dataset", "model", "recipe", "scenario", "forget_request", "method")


def reproduce(records: Sequence[Record], spec: Mapping[str, Any] | None = None) -> str:
    """Write a sweep file whose plan has exactly the cells of the records, and their references.

    The original and the retrained model of each seed come with every sweep. Names of files are
    relative to the folder of the sweep file; a comment says which files have to lie there.

    Args:
        records: The cells of one row: one method with its hyper-parameters on one task, with any
            number of seeds.
        spec: The sweep as it was asked for, `spec.json` beside the records. Without it, or if it
            is that of another sweep, a comment says what is not known.

    Returns:
        TOML with comments at the top; the same whatever the order of the records.

    Raises:
        InputError: If there are no records, or they are of several rows.
    """
    if not records:
        raise InputError("there are no records of which a sweep file could be made.")
    several = [name for name in SAME if len({getattr(r, name) for r in records}) > 1]
    several += [name for name in ("training", "hyperparameters") if len(_filled(records, name)) > 1]
    if several:
        raise InputError(f"the records are not of one row: they differ in {', '.join(several)}.")
    ordered = sorted(records, key=lambda record: record.seed)
    first = ordered[0]
    sweep = spec if spec is not None and spec.get("name") == first.sweep else None
    params: dict[str, Any] = next(iter(_filled(records, "hyperparameters")), {})
    training: dict[str, Any] = next(iter(_filled(records, "training")), {})
    unsaid = [f"`{key}`" for key, value in params.items() if _has_none(value)]
    # records that come from a file have their keys sorted
    params = {key: params[key] for key in sorted(params) if not _has_none(params[key])}
    probes, ulira, unknown = _switched_on(ordered, sweep)
    if "validation_fraction" not in training:
        unknown.insert(0, "the share of images held out for validation")
    if not training:
        unknown.insert(0, "the settings of training")
    content: dict[str, Any] = {
        "name": _name(first),
        "datasets": [first.dataset],
        "models": [first.model],
        "scenarios": [_beside(first.scenario)],
        "methods": [{"name": first.method, **params}] if params else [first.method],
        "recipes": [first.recipe],
        "seeds": _seeds(ordered, sweep),
        **{k: training[k] for k in ("validation_fraction",) if k in training},
    }
    if sweep is not None:
        content |= {
            "time_limit_s": sweep.get("time_limit_s"),
            "save_models": sweep.get("save_models", True),
            "plugins": [_lies_beside(str(name)) for name in sweep.get("plugins") or []],
        }
    content |= {
        "probes": probes,
        "training": {k: training[k] for k in TrainingSettings.model_fields if k in training},
        "ulira": ulira,
    }
    said = {key: value for key, value in _without_none(content).items() if value not in ({}, [])}
    lines = [*_head(first, len(ordered)), *_files(first, said.get("plugins", []), sweep)]
    if unsaid:
        lines.append(f"Left out, for TOML has no word for None: {', '.join(unsaid)}.")
    if unknown:
        lines.append(
            f"Not known from the records, and so left at the default: {'; '.join(unknown)}."
        )
    lines.insert(1, f"    {command(first)}")
    comment = "\n".join(line for text in lines for line in _commented(text))
    return f"{comment}\n\n{_on_one_line(tomli_w.dumps(said))}"


def command(record: Record, file: str = FILE) -> str:
    """The command that runs the file of `reproduce` where the record was made."""
    device = str(record.environment.get("device") or "").partition(":")[0]
    known = f" --device {device}" if re.fullmatch(r"\w+", device) else ""
    return f"unlearnbench run {file}{known}"


def _head(record: Record, cells: int) -> Iterator[str]:
    made = [
        f"{words} {record.environment[key]}"
        for key, words in (("unlearnbench", "unlearnbench"), ("git_commit", "commit"))
        if record.environment.get(key)
    ]
    number = "the cell" if cells == 1 else f"the {cells} cells"
    yield (
        f"Makes {number} of `{record.method}` on `{record.scenario}` of the sweep "
        f"`{record.sweep}` again, and the original and the retrained model of each seed:"
    )
    yield (
        f"The records were made with {', '.join(made) or 'a version that they do not say'}. "
        "Cells have the same keys only where the code of the method, the data and the kind of "
        "device are the same."
    )
    if record.tuning:
        yield (
            f"The hyper-parameters were found by tuning (study `{record.tuning.get('study', '?')}`)"
            " and are written out here; nothing is tuned again."
        )


def _files(
    record: Record, plugins: Sequence[str], sweep: Mapping[str, Any] | None
) -> Iterator[str]:
    """Sentences on the files that have to be there."""
    weights = record.model_info.get("weights") or {}
    name = parse_spec(record.model, "model").params.get("weights")
    if name is not None and name != "timm":
        digest = f" (sha256 {weights['digest']})" if weights.get("digest") else ""
        yield f"Needs the file of weights `{name}`{digest} beside this file."
    scenario = parse_spec(_beside(record.scenario), "scenario")
    if scenario.name == IdsScenario.name:
        yield (
            f"Needs the forget request {record.forget_request}, {record.forget_size} ids, as the "
            f"file `{scenario.params.get('file')}` beside this file."
        )
    if plugins:
        yield f"Needs the plug-in files {', '.join(f'`{n}`' for n in plugins)} beside this file."
    elif sweep is None:
        yield "If the sweep named plug-in files, give them with `--plugin`."


def _switched_on(
    records: Sequence[Record], sweep: Mapping[str, Any] | None
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Probes, settings of the attack, and what is not known of both."""
    if sweep is not None:
        ulira = dict(sweep.get("ulira") or {})
        if isinstance(ulira.get("stratify"), list):
            ulira["stratify"] = [_beside(text) for text in ulira["stratify"]]
        return list(sweep.get("probes") or []), ulira, []
    unknown = ["the time limit"]
    named = {name for record in records for name in record.probe.get("probes", ())}
    probes = [name for name in PROBES if name in named]
    if not probes and any(record.probe for record in records):
        unknown.append("the probes, which gave no figures")
    attacks = [record.attack for record in records if record.attack]
    if not attacks:
        if all(record.status != "ok" for record in records):
            unknown.append("probes and U-LIRA, since no cell is ok")
        return probes, {}, unknown
    ulira = {
        key: next(attack[key] for attack in attacks if key in attack)
        for key in ("shadows", "variance", "redraws")
        if any(key in attack for attack in attacks)
    }
    for name in ("klom", "forgetting_score"):
        if any(key.startswith(f"{name}/") for record in records for key in record.metrics):
            ulira[name] = True
    if "shadows" not in ulira:
        unknown.append("the number of shadow models of U-LIRA, which gave no figures")
    return probes, ulira, [*unknown, "the seed of U-LIRA and what its halves are balanced on"]


def _filled(records: Sequence[Record], name: str) -> list[Any]:
    """The distinct values of a field; cells that never ran may not say it."""
    found: list[Any] = []
    for record in records:
        value = getattr(record, name)
        if value and value not in found:
            found.append(value)
    return found


def _seeds(records: Sequence[Record], sweep: Mapping[str, Any] | None) -> list[int]:
    """In the order of the sweep, by which the probes pair retrained models."""
    seeds = list(dict.fromkeys(record.seed for record in records))
    order = {seed: place for place, seed in enumerate((sweep or {}).get("seeds") or [])}
    return sorted(seeds, key=lambda seed: (order.get(seed, len(order)), seed))


def _name(record: Record) -> str:
    """A name of its own, so that the first results are not written over."""
    ascii_only = re.sub(r"[^A-Za-z0-9._-]+", "_", slug(f"{record.sweep}-{record.method}-again"))
    return ascii_only if re.match(r"[A-Za-z0-9]", ascii_only) else f"sweep-{ascii_only}"


def _beside(scenario: Any) -> Any:  # noqa: ANN401
    """A scenario whose file, if it has one, lies in the folder of the sweep file."""
    try:
        spec = parse_spec(scenario, "scenario")
    except InputError:
        return scenario
    file = spec.params.get("file")
    if spec.name != IdsScenario.name or not isinstance(file, str):
        return scenario
    return format_spec(spec.name, {**spec.params, "file": _lies_beside(file)})


def _lies_beside(file: str) -> str:
    """Records name files from the folder in which the sweep was run, which nobody knows later."""
    return file if Path(file).is_absolute() else Path(file).name


def _has_none(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, Mapping):
        return any(map(_has_none, value.values()))
    return any(map(_has_none, value)) if isinstance(value, (list, tuple)) else value is None


def _without_none(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def _on_one_line(toml: str) -> str:
    """Lists that fit on one line; there is no line end inside a text of TOML's short form."""

    def joined(found: re.Match[str]) -> str:
        items = [line.strip().removesuffix(",") for line in found[2].splitlines()]
        line = f"{found[1]} = [{', '.join(items)}]"
        return line if len(line) <= WIDTH else found[0]

    return re.sub(r"^(\w+) = \[\n((?:    \S.*,\n)+)\]$", joined, toml, flags=re.MULTILINE)


def _commented(text: str) -> list[str]:
    """A sentence as lines of a TOML comment, which may hold no control character."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    if plain.startswith(" "):
        return [f"# {plain}"]  # a command, to be copied whole
    lines = textwrap.wrap(plain, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"# {line}" for line in lines]
