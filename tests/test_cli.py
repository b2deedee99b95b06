"""Bad input, listings and the smaller commands, as a user meets them."""

from __future__ import annotations

import json
import os
import socket

import pytest

from unlearnbench.bench import DATASETS, METHODS

from .commands import NARROW, TINY, TOY, call, modules_loaded_by, shell

HEAVY = {"torch", "torchvision", "timm", "mlflow", "pandas", "optuna", "sklearn", "matplotlib"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder, and no variable that moves anything."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in os.environ:
        if name.startswith(("UNLEARNBENCH_", "MLFLOW_")):
            monkeypatch.delenv(name)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Fail every connection, as on a train."""

    def refuse(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def toml(text=TOY, **changes):
    """A sweep file with some of its lines replaced; None takes a line away."""
    lines = []
    for line in text.splitlines():
        field = line.partition(" =")[0]
        if field in changes:
            value = changes.pop(field)
            line = None if value is None else f"{field} = {value}"
        lines.append(line)
    return "\n".join(
        [f"{field} = {value}" for field, value in changes.items()]
        + [line for line in lines if line is not None]
    )


def refused(here, *args, command="run"):
    """The sentences of a call that must end with code 2 and leave nothing behind."""
    before = {path for path in here.rglob("*")}
    extra = () if command != "run" or "--workers" in args else ("--workers", "0")
    result = call(command, *args, *extra)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert set(here.rglob("*")) == before
    lines = result.stderr.splitlines()
    assert lines
    assert all(line.startswith("Error: ") for line in lines), lines
    assert all(line.endswith((".", "?")) and "\n" not in line for line in lines), lines
    return [line.removeprefix("Error: ") for line in lines]


def one(here, *args, command="run"):
    """The only sentence of a refused call."""
    sentences = refused(here, *args, command=command)
    assert len(sentences) == 1, sentences
    return sentences[0]


# --- names and values in the sweep file --------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": '["scurb"]'}, ["unknown method `scurb`", "did you mean `scrub`", "Known: "]),
        ({"datasets": '["digit"]'}, ["unknown dataset `digit`", "did you mean `digits`"]),
        ({"models": '["resnet181"]'}, ["unknown model `resnet181`", "`resnet18`", "ls models"]),
        ({"scenarios": '["clas"]'}, ["unknown scenario `clas`", "did you mean `class`", "random"]),
        ({"recipes": '["orthogonl"]'}, ["unknown recipe `orthogonl`", "did you mean `orthogonal`"]),
        ({"methods": '["scrub[lrr=1]"]'}, ["method `scrub`", "unknown key `lrr`", "mean `lr`"]),
        ({"methods": '["finetune[epochs=0]"]'}, ["method `finetune`", "`epochs`", "got 0"]),
        ({"methods": '["finetune[lr=nan]"]'}, ["method `finetune`", "`lr`", "finite"]),
        ({"methods": '["finetune[lr=fast]"]'}, ["method `finetune`", "`lr`", "got 'fast'"]),
        ({"methods": '["finetune[lr=]"]'}, ["finetune[lr=]"]),
        ({"methods": "[3]"}, ["a method is written `name` or `name[key=value,…]`; got 3."]),
        ({"methods": "[]"}, ["`methods`", "at least 1"]),
        ({"recipes": '["orthogonal[rho=1]"]'}, ["recipe `orthogonal`", "`rho`", "ortho_lambda"]),
        ({"datasets": '["synthetic[classes=1]"]'}, ["dataset `synthetic`", "`classes`", "got 1"]),
        ({"epochs": "-1"}, ["`training.epochs`", "greater than or equal to 0", "got -1"]),
        ({"epochs": '"three"'}, ["`training.epochs`", "valid integer", "got 'three'"]),
        ({"lr": "-0.1"}, ["`training.lr`", "greater than 0", "got -0.1"]),
        ({"validation_fraction": "1.0"}, ["`validation_fraction`", "less than 1", "got 1.0"]),
        ({"time_limit_s": "0"}, ["`time_limit_s`", "greater than 0", "got 0"]),
        ({"seeds": "0"}, ["`seeds`", "at least 1"]),
        ({"seeds": "[-1]"}, ["`seeds.0`", "greater than or equal to 0", "got -1"]),
        ({"seeds": '"all"'}, ["`seeds`", "got 'all'"]),
        ({"datasetz": '["digits"]'}, ["unknown key `datasetz`", "did you mean `datasets`"]),
        ({"datasets": None}, ["`datasets` is missing"]),
        ({"name": '"../x"'}, ["`name`", "got '../x'"]),
        ({"name": '""'}, ["`name`", "got ''"]),
        ({"plugins": "3"}, ["`plugins`", "got 3"]),
        ({"plugins": '"absent.py"'}, ["plug-in file `absent.py` does not exist"]),
    ],
    ids=lambda value: next(iter(value.items())).__str__() if isinstance(value, dict) else "",
)
def test_a_wrong_value_in_a_sweep_file_is_one_sentence_and_nothing_is_written(here, changes, said):
    (here / "sweep.toml").write_text(toml(**changes))
    sentence = one(here, "sweep.toml")
    for words in said:
        assert words in sentence


def test_fields_that_are_wrong_in_the_same_way_are_reported_apart(here):
    (here / "sweep.toml").write_text(
        toml(methods="3", models="3", epochs="[]", lr="[]", batch_size="[]")
    )
    sentences = refused(here, "sweep.toml")
    for field in ("methods", "models", "training.epochs", "training.lr", "training.batch_size"):
        assert sum(f"`{field}`" in sentence for sentence in sentences) == 1
    assert len(sentences) == 5


def test_an_unknown_key_in_the_training_table_is_answered_with_the_nearest(here):
    (here / "sweep.toml").write_text(TOY + "epoch = 3\n")
    sentence = one(here, "sweep.toml")
    assert "`[training]`: unknown key `epoch`; did you mean `epochs`?" in sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"methods = [", "is not valid TOML"),
        (b"a = 1\na = 2", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"training = 3", "`datasets` is missing"),
    ],
)
def test_a_sweep_file_that_is_no_sweep_is_refused(here, content, said):
    (here / "sweep.toml").write_bytes(content)
    assert any(said in sentence for sentence in refused(here, "sweep.toml"))


def test_a_sweep_file_that_is_absent_or_a_folder_is_refused(here):
    assert one(here, "absent.toml") == (
        "sweep file `absent.toml` does not exist, nor is it one of those that come with "
        "unlearnbench: `osp-ablations`, `quickstart`, `svd-options`."
    )
    (here / "folder.toml").mkdir()
    assert "`folder.toml` cannot be read: Is a directory." in one(here, "folder.toml")


# --- scenarios and data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("class[classes=[4]]", ["class 4 does not exist", "0 to 3"]),
        ("class[classes=[-1]]", ["class -1 does not exist"]),
        (
            "class[classes=[1.5]]",
            ["`classes.0` should be a valid integer", " or a valid string; got 1.5."],
        ),
        ("class[classes=[shirt]]", ["unknown class `shirt`", "Known: "]),
        ("class[classes=[]]", ["`classes`", "at least 1"]),
        ("class[classes=[0,1,2,3]]", ["retain set empty"]),
        ("random[fraction=0]", ["`fraction`", "greater than 0", "got 0"]),
        ("random[fraction=1]", ["`fraction`", "less than 1", "got 1"]),
        ("random[fraction=0.001]", ["forget set empty", "108 examples"]),
        ("random[fraction=0.999]", ["retain set empty"]),
        ("random[count=0]", ["`count`", "got 0"]),
        ("random[count=108]", ["retain set empty"]),
        ("random[count=109]", ["`count`", "108", "got 109"]),
        ("random[fraction=0.1,count=3]", ["not both"]),
        ("random[count=1.5]", ["`count`", "integer"]),
        ("ids", ["`file` is missing"]),
        ("ids[file=absent.json]", ["`absent.json` does not exist"]),
    ],
)
def test_a_forget_set_that_cannot_be_is_one_sentence(here, scenario, said):
    (here.parent / "sweep.toml").write_text(TOY)
    sentence = one(here, here.parent / "sweep.toml", "--scenario", scenario)
    assert f"scenario `{scenario.partition('[')[0]}" in sentence
    for words in said:
        assert words in sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "forget set empty"),
        (b"0\n1\nx\n", "neither an exported forget request nor a list of whole numbers"),
        (b"1.5", "neither"),
        (b"\x89PNG\xff\x00", "neither"),
        (b"{", "neither"),
        (b"{}", "neither"),
        (b'{"data_digest": "DIGEST", "ids": [1.5]}', "neither"),
        (b'{"data_digest": "DIGEST", "ids": 3}', "neither"),
        (b'{"data_digest": "DIGEST", "ids": ["1"]}', "neither"),
        (b'{"data_digest": "other", "dataset": "mnist", "ids": [1]}', "from other data (`mnist`)"),
        (b"-1\n5", "1 ids are not in the training set"),
        (b"120", "1 ids are not in the training set"),
        (b"99999999999999999999999", "neither"),
    ],
)
def test_an_ids_file_that_cannot_be_used_is_one_sentence(here, content, said):
    digest = DATASETS.create(TINY).load(here).digest
    (here / "sweep.toml").write_text(TOY)
    (here / "ids.json").write_bytes(content.replace(b"DIGEST", digest.encode()))
    sentence = one(here, "sweep.toml", "--scenario", "ids[file=ids.json]")
    assert said in sentence
    assert "scenario `ids[file=ids.json]`" in sentence or said == "forget set empty"


def test_ids_of_validation_examples_are_refused(here):
    from .toys import toy_data

    held_out = toy_data().split.validation[:2]
    (here / "sweep.toml").write_text(toml(datasets=f'["{TINY[:-1]},seed=1]"]'))
    (here / "ids.txt").write_text("\n".join(map(str, held_out)))
    sentence = one(here, "sweep.toml", "--scenario", "ids[file=ids.txt]")
    assert "2 ids are not in the training set (108 examples after validation" in sentence


def test_data_that_are_absent_without_a_network_are_one_sentence(here, no_network):
    (here / "sweep.toml").write_text(toml(datasets='["cifar10"]'))
    sentence = one(here, "sweep.toml", "--data-root", "nowhere")
    assert "dataset `cifar10` is not in `nowhere/cifar-10-batches-py`" in sentence
    assert "could not be downloaded" in sentence
    assert "--data-root" in sentence


def test_nothing_is_downloaded_for_a_sweep_that_is_wrong_anyway(here, no_network):
    (here / "sweep.toml").write_text(toml(datasets='["cifar10"]', methods='["scurb"]'))
    assert "unknown method `scurb`" in one(here, "sweep.toml", "--data-root", "nowhere")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise OSError('no disk')", "cannot be loaded: OSError: no disk."),
        ("return 3", "must return `ImageData` from `load`; got int."),
    ],
)
def test_a_dataset_of_a_plugin_that_fails_is_one_sentence(here, plugin, body, told):
    path = plugin(
        "from unlearnbench.bench import Dataset\n"
        "class Leaky(Dataset):\n"
        "    name = 'leaky'; reference = 'none'; about = 'nothing'\n"
        f"    def load(self, data_root):\n        {body}\n"
    )
    (here / "sweep.toml").write_text(toml(datasets='["leaky"]'))
    sentence = one(here, "sweep.toml", "--plugin", path)
    assert sentence == f"dataset `leaky` {told}"


# --- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18[depth=9]", ["timm cannot build model `resnet18[depth=9]`", "depth"]),
        ("vit_tiny_patch16_224[patch_size=5]", ["timm cannot build model", "patch"]),
        ("resnet18[num_classes=3]", ["`num_classes` is set by the harness"]),
        ("resnet18[pretrained=true]", ["`pretrained`"]),
        ("resnet18[stem=large]", ["`stem` must be auto, small or own; got 'large'"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_model_that_cannot_be_built_is_one_sentence(here, command, model, said):
    (here / "sweep.toml").write_text(TOY)
    result = call(command, "sweep.toml", "--model", model, "--workers", 0)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    for words in said:
        assert words in sentence
    assert not (here / "results").exists() or not list((here / "results").rglob("*.*"))


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0"], ["`--seeds`", "got `0`"]),
        (["--seeds", "-1"], ["`--seeds`", "got `-1`"]),
        (["--seeds", "x"], ["`--seeds`", "got `x`"]),
        (["--seeds", ""], ["`--seeds`", "got ``"]),
        (["--seeds", "1,,2"], ["`--seeds`", "got `1,,2`"]),
        (["--device", "cuda:99"], ["device `cuda:99` is not available here", "allowed: auto"]),
        (["--device", "gpu"], ["device `gpu` is not available here"]),
        (["--device", ""], ["device `` is not available here"]),
        (["--device", "cpu:x"], ["device `cpu:x` is not available here"]),
        (["--tracking-uri", "mlruns"], ["tracking URI `mlruns`", "sqlite:///"]),
        (["--tracking-uri", "http://"], ["tracking URI `http://`"]),
        (["--tracking-uri", ""], ["tracking URI ``"]),
        (["--name", "../x"], ["`name`", "got '../x'"]),
        (["--name", ""], ["`name`", "got ''"]),
        (["--method", ""], ["`methods`", "at least 1"]),
        (["--plugin", "absent.py"], ["plug-in file `absent.py` does not exist"]),
        (["--plugin", "."], ["plug-in file `.` cannot be read: Is a directory"]),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_sentence_and_nothing_is_written(here, options, said):
    (here / "sweep.toml").write_text(TOY)
    sentence = one(here, "sweep.toml", *options)
    for words in said:
        assert words in sentence


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_cuda_where_there_is_none_is_one_sentence(here):
    (here / "sweep.toml").write_text(TOY)
    assert "device `cuda` is not available here; allowed: auto, " in one(
        here, "sweep.toml", "--device", "cuda"
    )


@pytest.mark.parametrize(
    "options",
    [["--epochs", "-1"], ["--time-limit", "0"], ["--workers", "-1"], ["--metod", "scrub"]],
    ids=" ".join,
)
def test_an_option_that_click_refuses_has_the_same_exit_code(here, options):
    result = call("run", *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("x = 1", "defines no method and no dataset"),
    ],
)
def test_a_broken_plugin_is_one_sentence_and_its_names_are_not_called_unknown(
    here, plugin, source, said
):
    path = plugin(source)
    (here / "sweep.toml").write_text(TOY)
    sentence = one(here, "sweep.toml", "--plugin", path, "--method", "mine")
    assert str(path) in sentence
    assert said in sentence


def test_all_broken_plugins_are_reported_together(here, plugin):
    paths = [plugin("def", "one.py"), plugin("1 / 0", "two.py"), "absent.py"]
    (here / "sweep.toml").write_text(TOY)
    sentences = refused(here, "sweep.toml", *(part for p in paths for part in ("--plugin", p)))
    assert len(sentences) == 3


# --- everything together -----------------------------------------------------------------------


def test_mistakes_of_every_kind_are_reported_together(here):
    changes = {
        "epochs": -1,
        "datasets": f'["{TINY}", "digit"]',
        "methods": '["scurb", "finetune[lr=-1]"]',
        "models": f'["resnet181", "{NARROW}", "resnet18[depth=9]"]',
        "scenarios": '["class[classes=[99]]", "rando", "random[count=0]"]',
        "recipes": '["plane"]',
        "colour": '"red"',
    }
    (here / "sweep.toml").write_text(toml(**changes) + "\nbatchsize = 3\n")
    options = ["--seeds", "x", "--device", "abacus", "--tracking-uri", "mlruns"]
    sentences = refused(here, "sweep.toml", *options)
    wrong = ["`--seeds`", "`training.epochs`", "`colour`", "`batchsize`", "tracking URI",
             "`digit`", "`scurb`", "`resnet181`", "depth=9", "`rando`", "`count`", "class 99",
             "`plane`", "`abacus`", "method `finetune`"]  # fmt: skip
    for name in wrong:
        assert sum(name in sentence for sentence in sentences) == 1, name
    assert len(sentences) == len(wrong)
    planned = call("plan", "sweep.toml", *options)
    assert planned.stderr.splitlines() == [f"Error: {sentence}" for sentence in sentences]


def test_a_mistake_is_said_once_though_it_is_met_for_every_dataset(here):
    (here / "sweep.toml").write_text(
        toml(datasets='["synthetic", "digits"]', methods='["scurb", "scurb"]')
    )
    assert "`scurb`" in one(here, "sweep.toml")


# --- places that cannot be written -------------------------------------------------------------


@pytest.mark.parametrize("option", ["--store", "--out"])
def test_a_file_in_the_way_of_store_or_output_folder_is_one_sentence(here, option):
    (here / "sweep.toml").write_text(TOY)
    (here / "file").write_text("in the way")
    places = {"--store": "store", "--out": "out"} | {option: "file/below"}
    result = call("run", "sweep.toml", "--workers", 0, *(p for kv in places.items() for p in kv))
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert "`file/below` cannot be written: Not a directory." in sentence
    assert not list(here.rglob("*.jsonl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
@pytest.mark.parametrize("option", ["--store", "--out"])
def test_a_folder_without_permission_is_one_sentence(here, option):
    (here / "sweep.toml").write_text(TOY)
    (here / "locked").mkdir(mode=0o500)
    result = call("run", "sweep.toml", "--workers", 0, option, "locked/below")
    assert result.exit_code == 2
    assert "cannot be written: Permission denied." in result.stderr


def test_a_plan_reads_a_store_that_cannot_be_written(here):
    (here / "sweep.toml").write_text(TOY)
    (here / "store").mkdir()
    result = call("plan", "sweep.toml", "--store", "store")
    assert result.exit_code == 0
    assert list((here / "store").iterdir()) == []


# --- file names --------------------------------------------------------------------------------


def test_file_names_in_a_sweep_file_are_relative_to_it_and_options_to_the_current_folder(
    here, plugin, tmp_path
):
    sweeps = tmp_path / "sweeps"
    sweeps.mkdir()
    path = plugin(
        "from unlearnbench.bench import Unlearner\n"
        "class Mine(Unlearner):\n"
        "    '''Do nothing.'''\n"
        "    name = 'beside'; reference = 'none'\n"
        "    def unlearn(self, model, task): return model\n"
    )
    path.rename(sweeps / "mine.py")
    (sweeps / "ids.txt").write_text("\n".join(str(i) for i in range(100)))
    (sweeps / "sweep.toml").write_text(
        toml(plugins='"mine.py"', methods='["beside"]', validation_fraction=0.0,
             scenarios='["ids[file=ids.txt]", {name = "ids", file = "./ids.txt"}]')
    )  # fmt: skip
    result = call("plan", "../sweeps/sweep.toml")
    assert result.exit_code == 0, result.stderr
    assert "beside" in result.stdout
    assert '· ids[file="../sweeps/ids.txt"]' in result.stdout
    assert "100 to forget" in result.stdout
    sentence = one(here, "../sweeps/sweep.toml", "--scenario", "ids[file=ids.txt]")
    assert "`ids.txt` does not exist" in sentence


# --- listings and help -------------------------------------------------------------------------


def test_methods_are_listed_on_a_line_each_with_needs_scope_and_reference():
    lines = call("ls", "methods").stdout.splitlines()
    assert [line.split()[0] for line in lines] == METHODS.names()
    for line, cls in zip(lines, METHODS.classes(), strict=True):
        needs, scope, reference = line.split("  ", 1)[1], cls.scope, cls.reference
        assert "needs " + (", ".join(sorted(cls.needs)) or "nothing") in needs
        assert ("any forget set" if len(scope) == 2 else f"{next(iter(scope))} only") in line
        assert reference in line
        assert cls.summary() in line
    assert "orthogonal recipe" in next(line for line in lines if line.startswith("osp"))


def test_datasets_and_scenarios_are_listed_on_a_line_each():
    lines = call("ls", "datasets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == DATASETS.names()
    for line, cls in zip(lines, DATASETS.classes(), strict=True):
        assert cls.about in line
        assert cls.reference in line
    scenarios = call("ls", "scenarios").stdout.splitlines()
    assert [line.split()[0] for line in scenarios] == ["class", "random", "ids"]
    assert "fraction, count, draw_seed" in scenarios[1]


def test_models_are_listed_by_wildcard():
    names = call("ls", "models", "resnet1*").stdout.splitlines()
    assert "resnet18" in names
    assert all(name.startswith("resnet1") for name in names)
    assert call("ls", "models", "no-such-*").stdout == ""
    assert call("ls", "methods", "neg*").stdout.count("\n") == 2
    assert call("ls", "methods", "no-such-*").stdout == ""


def test_a_plugin_file_can_be_listed(plugin):
    path = plugin(
        "from unlearnbench.bench import Unlearner\n"
        "class Mine(Unlearner):\n"
        "    '''Forget by magic.'''\n"
        "    name = 'magic'; reference = 'Merlin'\n"
        "    def unlearn(self, model, task): return model\n"
    )
    (line,) = call("ls", "methods", "magic", "--plugin", path).stdout.splitlines()
    assert line.split("  ")[0] == "magic"
    assert "Merlin" in line
    assert "Forget by magic" in line


def test_a_broken_plugin_of_somebody_else_is_listed_as_broken(here):
    package = here / "theirs-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[unlearnbench.methods]\ntheirs = theirs_module\n"
        "[unlearnbench.datasets]\ntheir-data = theirs_module\n"
    )
    (here / "theirs_module.py").write_text("raise RuntimeError('old version')")
    for kind, name in (("methods", "theirs"), ("datasets", "their-data")):
        listed = shell("ls", kind, cwd=here, PYTHONPATH=str(here))
        assert listed.returncode == 0, listed.stderr
        (line,) = [line for line in listed.stdout.splitlines() if line.startswith(name)]
        assert "broken plug-in: RuntimeError: old version" in line
        assert listed.stderr == ""
    used = shell("plan", "--method", "theirs", cwd=here, PYTHONPATH=str(here))
    assert used.returncode == 2
    assert used.stderr == ("Error: method `theirs` cannot be loaded: RuntimeError: old version.\n")


@pytest.mark.parametrize(
    "args",
    [
        ["ls", "methods"],
        ["ls", "datasets"],
        ["ls", "scenarios"],
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["plan", "-h"],
        ["request", "--help"],
        ["leaderboard", "--help"],
        ["diff", "--help"],
        ["ls", "--help"],
    ],
    ids=" ".join,
)
def test_listings_and_help_load_no_heavy_library(here, args):
    assert not modules_loaded_by(*args, cwd=here) & HEAVY


def test_help_names_every_option_of_the_issue():
    text = call("run", "--help").stdout
    assert "\n  unlearnbench run my_sweep.toml --workers 4\n" in text
    for option in ("dataset", "model", "method", "scenario", "seeds", "recipe", "store", "out",
                   "tracking-uri", "workers", "device", "plugin"):  # fmt: skip
        assert f"--{option} " in text


# --- plan --------------------------------------------------------------------------------------


def test_plan_prints_cells_and_trainings_and_creates_nothing(here):
    (here / "sweep.toml").write_text(TOY)
    result = call("plan", "sweep.toml", "--method", "finetune", "--method", "osp", "--seeds", 2)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("to run\n") == 12
    assert "Would train 4 originals and 4 retrained models (2 epochs each)" in result.stdout
    assert [path.name for path in here.iterdir()] == ["sweep.toml"]


def test_plan_without_a_sweep_is_that_of_the_quickstart(here):
    result = call("plan")
    assert result.exit_code == 0
    assert result.stdout.startswith("digits[label_noise=0.1] · ")
    for name in [
        "retrain",
        "finetune",
        "neggrad",
        "neggrad-plus",
        "scrub",
        "svd",
        "osp",
        "identity",
        "head-mask",
    ]:
        assert f"\n  {name}" in result.stdout
    assert list(here.iterdir()) == []


def test_plan_takes_the_options_of_run(here):
    (here / "sweep.toml").write_text(TOY)
    options = ["--out", "out", "--workers", 2, "--tracking-uri", "sqlite:///x.db"]
    assert call("plan", "sweep.toml", *options).exit_code == 0
    assert not (here / "out").exists()


# --- request -----------------------------------------------------------------------------------


def test_an_exported_request_draws_the_same_set_again(here):
    (here / "sweep.toml").write_text(TOY)
    for scenario, scope in (("class[classes=[2]]", "any"), ("random[fraction=0.2]", "sample")):
        made = call("request", "sweep.toml", "--scenario", scenario, "--to", "f.json")
        assert made.exit_code == 0, made.stderr
        content = json.loads((here / "f.json").read_text())
        assert made.stdout.startswith(f"Forget request {content['hash']}: ")
        assert f"{len(content['ids'])} of 108 training examples, in f.json" in made.stdout
        plans = [
            call("plan", "sweep.toml", "--scenario", s, "--method", "head-mask").stdout
            for s in (scenario, "ids[file=f.json]")
        ]
        for plan in plans:
            assert f"forget request {content['hash']}: {len(content['ids'])} to forget" in plan
            assert ("skipped: forgets whole classes only" in plan) == (scope == "sample")


def test_a_request_of_a_sweep_with_several_forget_sets_is_refused(here):
    sentence = one(here, "--to", "f.json", command="request")
    assert "this sweep has 2 forget requests" in sentence
    assert not (here / "f.json").exists()


def test_a_request_that_cannot_be_written_is_one_sentence(here):
    (here / "sweep.toml").write_text(TOY)
    sentence = one(here, "sweep.toml", "--to", "sweep.toml/f.json", command="request")
    assert "`sweep.toml/f.json` cannot be written: " in sentence


# --- leaderboard -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there are no records at"),
        (b"", "holds no records"),
        (b"{}\n[]\n", "line 1 is not a valid record"),
        (b"\xff\n", "is not UTF-8 text"),
    ],
)
def test_a_leaderboard_without_records_is_refused(here, content, said):
    (here / "out").mkdir()
    if content is not None:
        (here / "out" / "records.jsonl").write_bytes(content)
    sentences = refused(here, "out", command="leaderboard")
    assert said in sentences[0]
    assert len(sentences) == (2 if content == b"{}\n[]\n" else 1)
