"""The checks are checked: methods and datasets with one fault each, caught by the named check."""

from __future__ import annotations

import re
import textwrap

import pytest

from unlearnbench.bench import InputError
from unlearnbench.bench.testing import check_plugin, checks_of
from unlearnbench.bench.testing.suite import find_subjects, results

from .commands import plugins_forgotten

HEAD = '''
import gc, os, random, sys, time
import numpy as np, torch
from typing import Annotated, Any, ClassVar
from pydantic import ConfigDict, Field, PlainSerializer
from unlearnbench.bench import DATASETS, DeclinedError, Range, Unlearner

KEPT = []

class _Good(Unlearner):
    """Make the forgotten classes less probable."""

    reference = "test"

    def unlearn(self, model, task):
        head = next(layer.module for layer in task.layers(model) if layer.is_head)
        with torch.no_grad():
            head.bias[list(task.forget_classes)] -= 9
        return self.finish(model, task)

    def finish(self, model, task):
        return model
'''
METHOD = '''
class {cls}(_Good):
    """Have one fault.

    Attributes:
        a: A number.
        size: A size.
        step: A step.
        weight: A weight.
    """
    name = "{name}"
'''


def finishing(code, fields=""):
    """The body of a method that does something more before it returns the model."""
    code = textwrap.indent(textwrap.dedent(code).strip(), " " * 8)
    fields = textwrap.indent(textwrap.dedent(fields).strip(), " " * 4)
    return f"{fields}\n    def finish(self, model, task):\n{code}\n        return model\n"


# check -> methods that it catches, and what its sentence says
BAD = {
    "kebab-name": [("Bad_Name", "pass", "rename `Bad_Name`")],
    "reference-given": [("no-reference", "reference = ' '", "say in `reference`"),
                        ("no-docstring", "__doc__ = None", "give the class `NoDocstring` a doc")],
    "parameters-described": [("no-description", "pace: int = 3", "describe `pace` under")],
    "valid-defaults": [
        ("bad-default", "step: Annotated[int, Field(ge=1)] = 0", "`step` should be greater"),
    ],
    "defaults-in-ranges": [
        ("outside", "step: Annotated[int, Range(2, 9)] = 1", "widen the range of `step`, 2 to 9"),
    ],
    "possible-ranges": [
        ("impossible", "a: Annotated[float, Range(0, 4)] = 1.0\n    "
                       "def model_post_init(self, context):\n        "
                       "if self.a > 3:\n            raise ValueError('too large')",
         "narrow the search of `a`, which allows 4"),
    ],
    "frozen-parameters": [
        ("soft", "model_config = ConfigDict(frozen=False)\n    a: int = 1", "take `frozen=False`"),
    ],
    "runs": [
        ("raises", finishing("raise ValueError('no such layer')"), "ValueError: no such layer"),
        ("returns-none", finishing("return None"), "must return a model; got NoneType"),
        ("dies", finishing("os._exit(3)"), "exit code 3"),
        ("declines", finishing("raise DeclinedError('not today.')"),
         "all are declined: not today"),
        ("confesses", finishing("return None", "known_failures = {'runs': 'lazy'}"),
         "take `runs` out of `known_failures`"),
    ],
    "same-architecture": [
        ("other-network", finishing("return torch.nn.Linear(3, 4)"), "is absent, in the original"),
        ("half-precision", finishing("model.half()"), "float16, in the original"),
        ("wider-head", finishing("""
            for name, module in list(model.named_modules()):
                if isinstance(module, torch.nn.Linear) and name in ('fc', 'head'):
                    setattr(model, name, torch.nn.Linear(module.in_features, 9))
         """), "(9,"),
    ],
    "finite": [("nan", finishing("""
        with torch.no_grad():
            next(model.parameters()).fill_(float('nan'))
    """), "values that are not finite"),
               ("overflow", finishing("""
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(3e38)
    """), "outputs are not finite")],
    "original-untouched": [("reaches-out", finishing("""
        for other in gc.get_objects():
            if type(other) is type(model) and other is not model:
                with torch.no_grad():
                    next(other.parameters()).add_(1)
    """), "of the original changed")],
    "images-untouched": [("paints", finishing("""
        for batch in task.forget.batches():
            pass
        vars(task.forget)['_pixels'].images.fill_(0)
    """, "needs = frozenset({'forget'})"), "the `forget` set has other images")],
    "prepared-untouched": [("spoils", finishing("task.prepared['x'].add_(1)", """
        def prepare(self, model, task):
            return {'x': torch.ones(2)}
    """), "`x` changed")],
    "no-gradients-left": [("untidy", finishing("""
        model(task.blank_batch(2).images).sum().backward()
    """, "needs = frozenset({'gradients'})"), "carries a gradient")],
    "no-hooks-left": [("hooked", finishing("""
        model.register_forward_hook(lambda *args: None)
    """), "remove every hook")],
    "trainable-as-before": [("freezes", finishing("""
        next(model.parameters()).requires_grad_(False)
    """), "put `requires_grad` back")],
    "keeps-nothing": [
        ("keeps-model", finishing("KEPT.append(next(model.parameters()))"), "holds the model"),
        ("keeps-task", finishing("KEPT.append(task)"), "still holds the task"),
        ("keeps-set", finishing("KEPT.append(task.forget)", "needs = frozenset({'forget'})"),
         "still holds the forget set"),
    ],
    "same-seed-same-bits": [
        ("ignores-the-seed", finishing("""
            noise = np.random.default_rng().normal(size=1)
            with torch.no_grad():
                next(model.parameters()).add_(1e-3 * float(noise[0]))
         """), "a second run gives other weights"),
        ("counts-its-calls", finishing("""
            KEPT.append(1)
            task.report(calls=len(KEPT))
         """), "a second run reports other values"),
        ("prepares-by-chance", finishing("pass", """
            def prepare(self, model, task):
                return {'x': torch.tensor(np.random.default_rng().normal(size=2))}
         """), "prepares other values"),
    ],
    "draws-from-task-rng": [
        ("global-torch", finishing("torch.rand(2)"), "calls `rand` without `generator=task.rng`"),
        ("global-numpy", finishing("np.random.rand()"), "draws from NumPy's global generator"),
        ("global-python", finishing("random.random()"), "draws from Python's global generator"),
        ("seeds-all", finishing("torch.manual_seed(3)"), "seeds torch's global generator"),
        ("own-generator", finishing("""
            torch.randn(2, generator=torch.Generator().manual_seed(5))
         """), "a generator seeded with 5 whatever the seed"),
    ],
    "global-state-restored": [
        ("threads", finishing("torch.set_num_threads(2)"), "the number of threads"),
        ("gradient-mode", finishing("torch.set_grad_enabled(True)"), "the gradient mode"),
        ("double", finishing("torch.set_default_dtype(torch.float64)"), "the default dtype"),
        ("moves", finishing("os.chdir('/')"), "the working directory"),
    ],
    "declared-sets-only": [
        ("peeks", finishing("len(task.retain)"), 'add "retain" to `needs`'),
        ("peeks-quietly", finishing("""
            try:
                task.training
            except PermissionError:
                pass
         """), "read it in `prepare` only"),
    ],
    "no-data-past-the-task": [
        ("loads", finishing("""
            try:
                DATASETS.create('synthetic').load(None)
            except PermissionError:
                pass
         """), "gets at a dataset"),
        ("climbs", finishing("""
            frame = sys._getframe()
            while frame and type(frame.f_locals.get('self')).__name__ != 'Workbench':
                frame = frame.f_back
            if frame:
                try:
                    frame.f_locals['self'].test_set()
                except PermissionError:
                    pass
         """), "gets at the test set"),
    ],
    "samples-counted": [
        ("uncounted", finishing("""
            list(task.retain.with_generator(task.rng).batches())
         """, "needs = frozenset({'retain'})"), "by way of `with_generator`"),
        ("inside", finishing("""
            task.retain._pixels.images.float().mean()
         """, "needs = frozenset({'retain'})"), "by way of `_pixels`"),
    ],
    "two-classes": [("one-at-a-time", finishing("""
        if len(task.forget_classes) == 2:
            1 / 0
    """), "ZeroDivisionError")],
    "tenth-of-the-examples": [("no-classes", finishing("""
        if task.forget_size > 1 and not task.forget_classes:
            task.forget_classes[0]
    """), "IndexError")],
    "one-example": [("spread", finishing("""
        if task.forget_size == 1:
            with torch.no_grad():
                next(model.parameters()).fill_(float('nan'))
    """), "gives NaN")],
    "one-class-left": [("one-left", finishing("""
        if len(task.forget_classes) == 3:
            1 / 0
    """), "ZeroDivisionError")],
    "empty-forget-set": [("means", finishing("1 / task.forget_size"), "ZeroDivisionError")],
    "pickles": [("local", "def __reduce__(self):\n        raise TypeError('no pickles')",
                 "define the class at the top")],
    "runs-in-a-worker": [
        ("here-only", finishing("""
            import multiprocessing
            if multiprocessing.parent_process():
                raise OSError('no worker')
         """), "OSError: no worker"),
        ("elsewhere", finishing("""
            import multiprocessing
            if multiprocessing.parent_process():
                with torch.no_grad():
                    next(model.parameters()).add_(1e-3)
         """), "a worker process gives other weights"),
    ],
    "time-limit": [("sleeps", finishing("time.sleep(600)"), "stopped by the time limit of 5 s")],
    "keeps-utility": [("destroys", finishing("""
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
    """), "test accuracy on what is kept falls")],
    "forgets": [("does-nothing", "def unlearn(self, model, task):\n        return model",
                 "choose stronger defaults")],
    "differentiable-penalty": [
        ("constant", "recipe = 'constant'\n    def training_penalty(self, model):\n        "
                     "return torch.ones(1)", "it carries no gradient"),
        ("root", "recipe = 'root'\n    def training_penalty(self, model):\n        "
                 "return (0 * next(model.parameters())).abs().sum().sqrt() * float('inf')",
         "not finite"),
    ],
    "penalty-leaves-the-model": [
        ("normalises", "recipe = 'normalising'\n    def training_penalty(self, model):\n        "
                       "w = next(model.parameters())\n        w.data.mul_(1.0001)\n        "
                       "return 1e-4 * w.square().sum()", "`training_penalty` changes weights"),
    ],
    "originals-keyed-apart": [
        ("one-key", 'recipe = "one-key"\n    '
                    "penalty_fields = frozenset({'weight'})\n    "
                    "weight: Annotated[float, PlainSerializer(lambda v: 1e-4), "
                    "Range(1e-5, 1e-3)] = 1e-4\n    "
                    "def training_penalty(self, model):\n        "
                    "return 1e-4 * next(model.parameters()).square().sum()",
         "originals of two values have the same key"),
    ],
    "penalty-fields-complete": [
        ("hides", 'recipe = "hiding"\n    '
                  "weight: Annotated[float, Range(1e-5, 1e-3)] = 1e-4\n    "
                  "def training_penalty(self, model):\n        "
                  "return self.weight * next(model.parameters()).square().sum()",
         "changes with one of `weight`"),
    ],
    "prepare-fields-complete": [
        ("hides-too", "prepare_fields = frozenset()\n    "
                      "size: Annotated[int, Range(1, 3)] = 2\n    "
                      "def prepare(self, model, task):\n        "
                      "return {'x': torch.full((2,), float(self.size))}",
         "changes with one of `size`"),
    ],
    "json-round-trip": [
        ("loses", "a: Any = (1, 2)", "comes back changed"),
    ],
}  # fmt: skip
CASES = [(check, name, words) for check, bad in BAD.items() for name, _, words in bad]
LIMITS_S = {"sleeps": 5.0}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Every bad method as a subject, by name; and one without a fault."""
    source = HEAD + METHOD.format(cls="Good", name="good")
    for bad in BAD.values():
        for name, body, _ in bad:
            cls = "".join(part.title() for part in re.split("[-_]", name))
            source += METHOD.format(cls=cls, name=name) + f"    {body.lstrip()}\n"
    path = tmp_path_factory.mktemp("planted") / "planted.py"
    path.write_text(source)
    with plugins_forgotten():
        found = {s.plugin.name: s for s in find_subjects(path, time_limit_s=60)}
        for name, limit_s in LIMITS_S.items():
            found[name].time_limit_s = limit_s
        yield found


def failed(subject, names=()):
    checks = [c for c in checks_of(subject.kind) if not names or c.name in names]
    found = results(subject, checks, whole=not names)
    return {r.check: r.message for r in found if not r.ok}


@pytest.mark.parametrize(("check", "name", "words"), CASES, ids=[case[1] for case in CASES])
def test_a_fault_is_caught_by_the_named_check_with_what_to_change(planted, check, name, words):
    message = failed(planted[name], [check])[check]
    assert words in message
    assert "\n" not in message
    assert not message.endswith(".")


@pytest.mark.slow
@pytest.mark.parametrize(("check", "name"), [case[:2] for case in CASES])
def test_a_fault_is_caught_by_no_other_check(planted, check, name):
    others = set(failed(planted[name])) - {check}
    assert others <= ALSO.get(name, set())


# some faults show in two ways
ALSO = {
    "bad-default": {"json-round-trip", "runs"},
    "constant": {"runs"},  # the original declines, since nothing is penalised
    "root": {"finite"},  # its original diverges
    "double": {"runs-in-a-worker"},  # a worker measures in the wrong dtype
}


def test_a_method_without_a_fault_passes_every_check(planted):
    found = list(results(planted["good"], checks_of("method"), whole=True))
    assert {r.check: r.message for r in found if not r.ok} == {}
    passed = {r.check for r in found if r.status == "passed"}
    recipes = {c.name for c in checks_of("method") if c.group == "recipes"}
    searched = {"possible-ranges", "defaults-in-ranges", "frozen-parameters"}
    assert passed == {c.name for c in checks_of("method")} - recipes - searched


def test_every_check_of_a_method_has_caught_something():
    assert {c.name for c in checks_of("method")} == {c for c, bad in BAD.items() if bad}
    assert {c.name for c in checks_of("dataset") if c.group == "images"} == set(BAD_IMAGES)


# --- known failures -------------------------------------------------------------------------------

KNOWN = f"""{HEAD}{METHOD.format(cls="Idle", name="idle")}
    known_failures = {{"forgets": "it only waits", "finite": "now mended", "finit": "misspelt"}}
    def unlearn(self, model, task):
        return model
"""


def test_a_known_failure_is_shown_with_its_reason_and_one_that_passes_is_reported(plugin):
    found = {r.check: r for r in check_plugin(plugin(KNOWN))}
    assert found["forgets"].status == "known"
    assert found["forgets"].message.startswith("it only waits (choose stronger defaults")
    assert found["forgets"].ok
    assert (found["finite"].status, found["finite"].ok) == ("mended", False)
    assert found["finite"].message == "this passes now; take it out of `known_failures`"
    assert found["finit"].status == "failed"
    assert "did you mean `finite`" in found["finit"].message
    assert [r.check for r in found.values() if not r.ok] == ["finit", "finite"]


# --- datasets -------------------------------------------------------------------------------------

IMAGES = """
import numpy as np
from unlearnbench.bench import Dataset, ImageData

class _Good(Dataset):
    '''Grey squares.'''
    reference = "made"
    about = "some"
    def load(self, data_root):
        return ImageData(**self.arrays())
    def arrays(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, size=(60, 1, 8, 8), dtype=np.uint8)
        labels = np.arange(60) % 3
        return {"train_images": images[:40], "train_labels": labels[:40],
                "test_images": images[40:], "test_labels": labels[40:],
                "class_names": ("a", "b", "c"), "mean": (0.5,), "std": (0.29,)}

class Squares(_Good):
    '''Grey squares.'''
    name = "squares"
"""
BAD_IMAGES = {
    "loads": [
        ("raises", "raise KeyError('file')", "mend `load`, which raises KeyError: 'file'"),
        ("labels", "a['train_labels'] = np.zeros(40)", "`train_labels` must be int64"),
        ("shapes", "a['test_images'] = np.zeros((20, 1, 9, 9), np.uint8)", "one shape"),
        ("empty", "a['test_labels'] = a['test_labels'][:0]; a['test_images'] = "
                  "a['test_images'][:0]", "the test set is empty"),
    ],
    "same-images-every-time": [
        ("shuffles", "np.random.default_rng().shuffle(a['train_images'])",
         "a second `load` gives other images"),
    ],
    "every-class-present": [
        ("absent", "a['class_names'] += ('d',)", "what has no training examples: `d`"),
    ],
    "distinct-class-names": [
        ("twins", "a['class_names'] = ('a', 'b', 'b')", "two are called `b`"),
    ],
    "normalisation": [
        ("bytes", "a['mean'] = (127.5,)", "not 127.500"),
        ("flat", "a['std'] = (0.0,)", "correct `std`"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "body", "words"),
    [(check, *rest) for check, bad in BAD_IMAGES.items() for _, *rest in bad],
    ids=[name for bad in BAD_IMAGES.values() for name, *_ in bad],
)
def test_a_fault_of_a_dataset_is_caught_by_the_named_check(plugin, check, body, words):
    fault = f"""
    def arrays(self):
        a = super().arrays()
        {body}
        return a
"""
    found = {r.check: r.message for r in check_plugin(plugin(IMAGES + fault)) if not r.ok}
    assert words in found[check]
    if check != "loads":
        assert list(found) == [check]


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_dataset_of_ours_keeps_the_contract(name):
    assert {r.check: r.message for r in check_plugin(name) if not r.ok} == {}


def test_a_dataset_that_returns_something_else_is_told_so(plugin):
    path = plugin(IMAGES + "    def load(self, data_root):\n        return 3\n")
    found = {r.check: r.message for r in check_plugin(path) if not r.ok}
    assert found["loads"] == "return `ImageData` from `load`; got int"


# --- what cannot be checked -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "checks", "sentence"),
    [
        ("scrup", [], "unknown method or dataset `scrup`; did you mean `scrub`"),
        ("identity", ["finit"], "unknown check `finit`; did you mean `finite`"),
        ("digits", ["finite"], "unknown check `finite`"),
        ("identity[lr=3]", [], "method `identity`: unknown key `lr`"),
        ("identity[", [], "is written `name` or `name[key=value,…]`"),
        ("absent.py", [], "plug-in file `absent.py` does not exist"),
    ],
)
def test_bad_input_is_one_sentence(what, checks, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        check_plugin(what, checks)
    assert len(caught.value.sentences) == 1
