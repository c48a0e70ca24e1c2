"The command line: what it does, and one sentence with exit status 2 for whatever can't be meant."
import csv
import inspect
import io
import json
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from dcgan import __version__, cli
from dcgan.cli import COMMANDS, in_shell, main, to_call, typed
from dcgan.networks import Generator
from dcgan.recipes import RECIPES, Recipe, command, from_json

from running import train

QUICK = ["--images", "64", "--epochs", "1", "--filters", "4", "--device", "cpu", "--verbose", "0"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty current folder, no data set anywhere."
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DCGAN_DATA", raising=False)
    return tmp_path


@pytest.fixture
def run(tiny, here, capsys):
    "A finished run of one epoch."
    train(tiny.replace(epochs=1, decay="none"), here / "run", save_plots=False)
    return here / "run"


def contents(folder): return {p: p.read_bytes() if p.is_file() else None for p in Path(folder).rglob("*")}


def refused(argv, words, capsys, framed=False):
    "Exit status 2, one sentence on stderr (tyro frames its own), nothing on stdout, nothing created or changed."
    before = contents(".")
    try:
        status = main(list(argv))
    except SystemExit as e:
        status = e.code
    out, err = capsys.readouterr()
    assert status == 2 and out == "", (status, out, err)
    assert "Traceback" not in err
    if framed:
        assert len(err.splitlines()) < 12, err
    else:
        assert err.startswith("dcgan: ") and err.count("\n") == 1 and err.rstrip()[-1] in ".?", err
    flat = " ".join(err.replace("│", " ").split())
    assert all(str(word) in flat for word in words), err
    assert contents(".") == before
    return flat


REFUSED = [  # the words, and what the sentence must hold
    ("", []),
    ("trian digits", ["'trian'", "'train'"]),
    ("--epochs 3", ["'--epochs'"]),
    ("train", ["which recipe", "digits", "mnist28"]),
    ("train --epochs 3", ["which recipe"]),
    ("train digit", ["'digit'", "'digits'"]),
    ("train mnist2", ["'mnist2'", "'mnist28'"]),
    ("train digits --epochz 3", ["'--epochz'", "'--epochs'"]),
    ("train digits --lr_gg 0.1", ["--lr-g"]),
    ("recipes --all", ["'--all'"]),
    ("train digits --epoch=3", ["'--epoch'", "'--epochs'"]),
    ("train digits 3", ["options: 3"]),
    ("train digits --name other", ["'--name'"]),
    ("train digits --epochs", ["--epochs"]),
    ("train digits --epochs three", ["--epochs", "'three'"]),
    ("train digits --epochs 0", ["epochs is 0", "from 1"]),
    ("train digits --epochs 1.5", ["--epochs", "'1.5'"]),
    ("train digits --lr-g -0.001", ["--lr-g is -0.001", "above 0"]),
    ("train digits --lr-d=-1", ["--lr-d is -1", "above 0"]),
    ("train digits --lr-g nan", ["--lr-g is nan"]),
    ("train digits --lr-g 2", ["--lr-g is 2.0"]),
    ("train digits --batch-size 0", ["--batch-size is 0"]),
    ("train digits --batch-size 1", ["--batch-size is 1", "BatchNorm"]),
    ("train digits --batch-size -64", ["--batch-size is -64"]),
    ("train digits --slope 1", ["slope is 1.0", "below 1"]),
    ("train digits --image-size 30", ["--image-size is 30", "28"]),
    ("train digits --net paper", ["image_size is 28", "8, 16, 32, 64"]),
    ("train digits --net paper --image-size 48", ["--image-size is 48"]),
    ("train digits --net papr", ["'papr'", "'paper'"]),
    ("train digits --channels 2", ["channels is 2"]),
    ("train digits --filters 2", ["filters is 2"]),
    ("train digits --ema 1", ["ema is 1.0"]),
    ("train digits --real-label 0.5", ["--real-label is 0.5"]),
    ("train digits --fake-label 0.5", ["--fake-label is 0.5"]),
    ("train digits --decay cosin", ["--decay", "cosine"]),
    ("train digits --seed -1", ["seed is -1"]),
    ("train digits --shift 20", ["shift is 20", "at most 7"]),
    ("train digits --images 10", ["64", "10"]),
    ("train digits --images 100000", ["100000", "4,000"]),
    ("train digits --data digitz", ["'digitz'", "'digits'"]),
    ("train mnist28 --data-dir nowhere", ["mnist is not in nowhere", "train-images-idx3-ubyte"]),
    ("train digits --device tpu", ["'tpu'", "cuda"]),
    ("train digits --device cuda:99", ["'cuda:99'", "not on this machine"]),
    ("train digits --precision fp61", ["'fp61'", "'fp16'"]),
    ("train digits --verbose 4", ["verbose is 4"]),
    ("train digits --resume", ["--run"]),
    ("train digits --resume --run nowhere", ["nowhere", "recipe.json"]),
    ("train digits --run file", ["file exists"]),
    ("train digits --run file/run", ["file/run"]),
    ("train digits --run empty", ["empty exists", "--resume"]),
    ("train digits --run empty --resume", ["empty", "recipe.json"]),
    ("sample", ["dcgan sample", "saved folder"]),
    ("sample nowhere", ["'nowhere'", "shipped names"]),
    ("sample empty", ["'empty'"]),
    ("evaluate", ["dcgan evaluate", "saved folder"]),
    ("evaluate nowhere", ["'nowhere'", "shipped names"]),
    ("evaluate empty", ["'empty'"]),
    ("evaluate empty --n 64", ["--n is 64", "from 65"]),
    ("evaluate empty --seeds 0", ["--seeds is 0", "from 1"]),
    ("evaluate empty --out absent", ["no folder absent"]),
    ("evaluate empty --seed 1", ["'--seed'", "'--seeds'"]),
    ("train digits --evaluate-every -1", ["--evaluate-every is -1", "from 0"]),
    (
        "train digits --net paper --image-size 64 --filters 4 --evaluate-every 1",
        ["28×28 with 1 channel", "64×64 with 1", "--resize"],
    ),
    ("shapes digit", ["'digit'", "'digits'"]),
    ("shapes digits --epochz 3", ["'--epochz'", "'--epochs'"]),
    ("shapes digits --image-size 30", ["--image-size is 30"]),
    ("recipes digits", ["options: digits"]),
]


FRAMED = [
    *(f"train digits {flag}" for flag in ("--epochs", "--epochs three", "--epochs 1.5", "--decay cosin", "3")),
    *("sample", "evaluate", "recipes digits"),
]  # tyro's own


@pytest.mark.parametrize("words, said", REFUSED, ids=[words or "nothing" for words, _ in REFUSED])
def test_bad_input_is_refused_in_a_sentence(here, monkeypatch, capsys, words, said):
    monkeypatch.setattr("socket.socket.connect", lambda *a: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    (here / "file").write_text("mine")
    (here / "empty").mkdir()
    if words:
        refused(words.split(), said, capsys, framed=words in FRAMED)
    else:
        assert main([]) == 2 and "dcgan train" in capsys.readouterr().out


def test_bad_resumes_are_refused(run, capsys):
    for words, said in [
        ("train digits --run run", ["run exists", "--resume"]),
        (
            "train digits --run run --resume --lr-g 0.5 --batch-size 32",
            ["lr_g: 0.001 → 0.5", "batch_size: 64 → 32"],
        ),
        ("train mnist28 --run run --resume", ["run of digits, not of mnist28"]),
        ("sample run --n 0", ["--n is 0"]),
        ("sample run --columns -1", ["--columns is -1"]),
        ("sample run --seed -1", ["--seed is -1"]),
        ("sample run --out run/recipe.json", ["run/recipe.json exists"]),
        ("sample run --out no/where.png", ["no"]),
        ("sample run --seed many", ["'many'"]),
        ("sample run --num 3", ["'--num'", "'--n'"]),
    ]:
        refused(words.split(), said, capsys, framed="many" in words)


def test_fewer_epochs_than_trained_are_refused(tiny, here, capsys):
    train(tiny.replace(epochs=2), here / "run", save_plots=False)
    refused("train digits --run run --resume --epochs 1".split(), ["is in epoch 2", "not 1"], capsys)


FEW = "--n 70 --seeds 2".split()


def test_evaluate_adds_to_the_report_and_says_the_same_again(run, capsys):
    before = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps(before | {"note": "mine"}))
    assert main(["evaluate", "run", *FEW]) == 0
    out, err = capsys.readouterr()
    assert (
        err == ""
        and out.startswith("digit-FID, not Inception FID: ")
        and "floor 0." in out
        and out.splitlines()[-1] == "run/report.json, run/report.png"
    )
    first = json.loads((run / "report.json").read_text())
    assert {k: v for k, v in first.items() if k != "evaluation"} == before | {"note": "mine"}
    assert first["evaluation"]["samples"] == 70 and first["evaluation"]["fid"] > 10 * first["evaluation"]["fid_floor"]
    picture = (run / "report.png").read_bytes()
    assert Image.open(run / "report.png").size == (800, 560)
    assert main(["evaluate", "run", *FEW]) == 0 and capsys.readouterr() == (out, "")
    assert json.loads((run / "report.json").read_text()) == first and (run / "report.png").read_bytes() == picture


def test_evaluate_a_saved_folder_and_a_shipped_name(run, here, monkeypatch, capsys):
    monkeypatch.setattr("dcgan.weights.ASSETS", here)
    (run / "generator").rename(here / "little")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    refused(["evaluate", "little", *FEW], ["little has no recipe.json", "--data digits"], capsys)
    assert main(["evaluate", "little", "--data", "digits", *FEW]) == 0 and sorted(os.listdir()) == [
        "report.json",
        "report.png",
    ]
    (here / "little/recipe.json").write_text((run / "recipe.json").read_text())
    (here / "out").mkdir()
    assert main(["evaluate", "little", "--out", "../out", *FEW]) == 0 and sorted(os.listdir("../out")) == [
        "report.json",
        "report.png",
    ]
    assert (
        json.loads(Path("report.json").read_text())["evaluation"]["fid"]
        == json.loads(Path("../out/report.json").read_text())["evaluation"]["fid"]
    )


def test_what_can_not_be_evaluated_is_refused(run, tiny, here, capsys):
    train(tiny.replace(net="paper", image_size=16, epochs=1), here / "small", save_plots=False)
    refused(["evaluate", "small", *FEW], ["28×28 with 1 channel", "16×16 with 1", "--resize"], capsys)
    assert main(["evaluate", "small", "--resize", *FEW]) == 0
    capsys.readouterr()
    refused(["evaluate", "run", "--data", "digitz"], ["'digitz'", "'digits'"], capsys)
    (run / "report.json").write_text("[" * 100_000)
    refused(["evaluate", "run", *FEW], ["run/report.json is no report"], capsys)
    (run / "report.json").write_text("[")
    refused(["evaluate", "run", *FEW], ["run/report.json is no report", "--out"], capsys)
    (run / "generator/model.safetensors").unlink()
    (run / "report.json").unlink()
    refused(["evaluate", "run", *FEW], ["run holds no generator yet"], capsys)


def test_training_is_measured_every_few_epochs_and_resumes(here, capsys):
    few = "--images 64 --batch-size 32 --filters 4 --device cpu --precision fp32 --verbose 0".split()
    assert main(["train", "digits", "--run", "whole", "--epochs", "4", "--evaluate-every", "2", *few]) == 0
    rows = list(csv.DictReader(open("whole/history.csv")))
    assert [row["epoch"] for row in rows if row["digit_fid"]] == ["1", "3"] and Image.open(
        "whole/losses.png"
    ).size == (672, 272)
    assert (
        main(
            ["train", "digits", "--run", "parts", "--epochs", "4", *few, "--evaluate-every", "2", "--decay", "none"]
        )
        == 0
    )
    assert main("train digits --run parts --resume --epochs 6 --evaluate-every 3 --verbose 0 --device cpu".split()) == 0
    rows = list(csv.DictReader(open("parts/history.csv")))
    assert [row["epoch"] for row in rows if row["digit_fid"]] == ["1", "3", "5"]
    assert all(float(row["digit_fid"]) > 10 for row in rows if row["digit_fid"])


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "recipe.json"),
        ("[]", "recipe.json"),
        ("[" * 100_000, "recipe.json"),
        ('{"epoch": 3}', "'epochs'"),
        ('{"lr_g": -1}', "lr_g is -1"),
        ("\xff", "recipe.json"),
    ],
)
def test_a_foreign_recipe_is_refused(run, capsys, text, said):
    (run / "recipe.json").write_text(text, encoding="latin-1")
    refused("train digits --run run --resume".split(), [said], capsys)


def test_damaged_runs_are_refused(run, capsys):
    (run / "generator/model.safetensors").write_bytes(b"\0" * 20)
    refused(["sample", "run"], ["model.safetensors", "damaged"], capsys)
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        (run / name).write_bytes((run / name).read_bytes()[:100])
    refused(
        "train digits --run run --resume --epochs 3".split(),
        ["run can't be resumed", "checkpoint.pt is cut short"],
        capsys,
    )


@pytest.mark.parametrize("argv, said", [
    (["train", "digits", "--lr-g", "-1"], "--lr-g is -1.0"), (["sample", "nowhere"], "'nowhere'")])
def test_as_a_program_it_exits_with_2(here, argv, said):
    done = subprocess.run(
        [sys.executable, "-m", "dcgan", *argv],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2 and done.stdout == "" and said in done.stderr and "Traceback" not in done.stderr
    assert not os.listdir()


def test_runs_are_numbered_and_the_end_says_what_to_open(here, capsys):
    for n in "001", "002":
        assert main(["train", "digits", *QUICK[:-1], "1"]) == 0
        out, err = capsys.readouterr()
        done, last = out.splitlines()[-2:]
        assert err == "" and last.startswith(f"open runs/digits-{n}/samples.png") and "images/s" in done and " s" in done
        assert {"samples.png", "recipe.json", "checkpoint.pt"} <= set(os.listdir(f"runs/digits-{n}"))
    Path("runs/digits-010").mkdir()
    assert main(["train", "digits", *QUICK]) == 0 and capsys.readouterr() == ("", "")
    assert sorted(os.listdir("runs")) == ["digits-001", "digits-002", "digits-010", "digits-011"]


def test_every_field_is_a_flag(here):
    changes = {
        "net": "paper",
        "image_size": 8,
        "channels": 3,
        "filters": 5,
        "z_dim": 7,
        "z_law": "uniform",
        "bias": False,
        "slope": 0.1,
        "init_std": None,
        "images": 30,
        "batch_size": 10,
        "last_batch": "keep",
        "rotate": 5.0,
        "shift": 1,
        "epochs": 1,
        "lr_g": 1e-5,
        "lr_d": 3e-4,
        "beta1": 0.4,
        "beta2": 0.9,
        "decay": "linear",
        "real_label": 0.9,
        "fake_label": 0.1,
        "d_reduction": "mean",
        "ema": None,
        "seed": 5,
        "log_every": 2,
        "sample_every": 4,
        "save_every": 6,
        "data": "digits",
        "g_fakes": "reuse",
        "classes": 10,
        "d_norm": False,
        "r1": 0.5,
        "name": "digits",
    }
    recipe = RECIPES["digits"].replace(**changes)
    assert set(changes) == set(Recipe.__dataclass_fields__)
    assert (
        main(
            [*command(recipe).split()[1:], "--run", "run", "--device", "cpu", "--verbose", "0", "--no-save-plots"]
        )
        == 0
    )
    assert from_json(Path("run/recipe.json").read_text()) == recipe
    assert json.loads(Path("run/report.json").read_text())["command"] == command(recipe)


def test_resume_takes_the_run_s_own_recipe(run, capsys):
    before = from_json((run / "recipe.json").read_text())
    assert main("train digits --run run --resume --epochs 2 --verbose 0 --device cpu".split()) == 0
    assert capsys.readouterr() == ("", "")
    assert from_json((run / "recipe.json").read_text()) == before.replace(epochs=2)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 8
    assert json.loads((run / "report.json").read_text())["precision"] == "fp32"


def test_sample_draws_what_the_generator_draws(run, capsys):
    assert main(["sample", "run"]) == 0
    assert capsys.readouterr() == ("run/samples-n64-seed0.png\n", "")
    assert Image.open("run/samples-n64-seed0.png").size == (8 * 30 + 2, 8 * 30 + 2)
    assert main(["sample", "run/generator", "--n", "7", "--seed", "3", "--columns", "5", "--out", "seven.png"]) == 0
    assert Image.open("seven.png").size == (5 * 30 + 2, 2 * 30 + 2)
    from dcgan.plots import save_grid
    save_grid(Generator.from_pretrained(run).sample(7, seed=3), "mine.png", columns=5)
    assert Path("mine.png").read_bytes() == Path("seven.png").read_bytes()


def test_sample_by_shipped_name(run, here, monkeypatch, capsys):
    monkeypatch.setattr("dcgan.weights.ASSETS", here)
    (run / "generator").rename(here / "little")
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    assert main(["sample", "little", "--n", "3"]) == 0 and os.listdir() == ["samples-little-n3-seed0.png"]


def test_shapes_shows_both_tables_with_totals(capsys):
    assert main(["shapes", "mnist28"]) == 0
    out = capsys.readouterr().out
    assert "747,841" in out and "64,545" in out and "1 × 28 × 28" in out
    assert (
        main(
            [
                "shapes", "digits", "--net", "paper", "--image-size", "64", "--filters", "128", "--z-dim",
                "100", "--no-bias",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "12,654,336" in out and "11,032,064" in out


def test_recipes_lists_them_all(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(RECIPES) and all(line.startswith("    ") for line in lines[1::2])


@pytest.mark.parametrize(
    "argv",
    (
        ["--help"],
        ["-h"],
        ["train", "--help"],
        ["train", "digits", "-h"],
        ["sample", "--help"],
        ["shapes", "--help"],
        ["evaluate", "--help"],
    ),
)
def test_help_is_help(here, argv, capsys):
    try:
        status = main(argv)
    except SystemExit as e:
        status = e.code
    out, err = capsys.readouterr()
    assert status in (0, None) and "dcgan" in out and err == "" and not os.listdir()
    if "digits" in argv:
        assert "--lr-g" in out and "learning rate of G" in out and "--run" in out and "--name" not in out
    elif argv[0] == "train":
        assert "--run" in out and all(name in out for name in RECIPES)


NETS = """
from torch import nn
def critic(first):
    return [first, nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 7), nn.Flatten()]
class Good(nn.Sequential):
    def __init__(self): super().__init__(*critic(nn.Conv2d(1, 8, 4, 2, 1)))
class Pooled(nn.Sequential):
    def __init__(self): super().__init__(*critic(nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.MaxPool2d(2))))
class Wide(nn.Sequential):
    def __init__(self, width): super().__init__(*critic(nn.Conv2d(width, 8, 4, 2, 1)))
word = "no network"
"""


@pytest.mark.parametrize("name, status", [("digits", 0), ("digits-conditional", 0), ("mnist28", 1)])
def test_audit_of_a_recipe(capsys, name, status):
    assert main(["audit", name]) == status
    out = capsys.readouterr().out
    assert ("broken" in out) == bool(status) and "kept" in out


def test_audit_of_a_class_in_a_file(here, capsys):
    (here / "mine.py").write_text(NETS)
    shape = ["--input-shape", "1", "28", "28"]
    assert main(["audit", "mine.py:Pooled", *shape]) == 1
    pooled = [line for line in capsys.readouterr().out.splitlines() if "max_pool2d" in line]
    assert pooled and all(line.startswith("broken") and "D 0.1" in line for line in pooled)
    main(["audit", "mine.py:Good", *shape])
    broken = [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken")]
    assert all("initial weights" in line for line in broken), (
        broken
    )  # PyTorch's default is not N(0, 0.02); all else is kept


@pytest.mark.parametrize(
    "what, said",
    [
        ("digit", ["'digit'", "'digits'"]),
        ("none.py:Net", ["no file none.py"]),
        ("mine.py:Nott", ["no class Nott"]),
        ("mine.py:Wide", ["without arguments", "width"]),
        ("mine.py", ["which class", "mine.py:Class"]),
        ("broken.py:Net", ["broken.py can't be run", "no_such_module"]),
        ("syntax.py:Net", ["syntax.py can't be run", "SyntaxError"]),
    ],
)
def test_audit_of_what_is_no_network_is_refused(here, capsys, what, said):
    (here / "mine.py").write_text(NETS)
    (here / "broken.py").write_text("import no_such_module")
    (here / "syntax.py").write_text("def f(:")
    sys.dont_write_bytecode = True
    refused(["audit", what], said, capsys)


def test_memory_that_runs_out_names_a_batch_that_may_fit(tmp_path, monkeypatch, capsys):
    def full(*a, **k):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )
    monkeypatch.setattr("dcgan.training.d_step", full)
    run = tmp_path / "run"
    assert (
        main(
            f"train digits --filters 4 --batch-size 512 --device cpu --verbose 0 --no-save-plots --run {run}".split()
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "A batch of 512 does not fit into" in said and "--batch-size 256 might" in said
    assert (run / "checkpoint.pt").exists()


def test_how_a_run_computes_is_a_flag(tmp_path):
    assert (
        main(
            f"train digits --filters 4 --images 64 --batch-size 32 --epochs 1 --device cpu --precision bf16 --threads 1 --compile eager "
            f"--verbose 0 --no-save-plots --run {tmp_path}/run".split()
        )
        == 0
    )
    assert json.loads((tmp_path / "run/report.json").read_text())["precision"] == "bf16"


def test_how_it_computes_is_refused_in_a_sentence(tmp_path, capsys):
    for flags, words in (
        ("--threads 0", "threads is 0; it must be a whole number from 1"),
        ("--device cuda:7", "'cuda:7' is not on this machine"),
        ("--compile gcc", "There is no compile 'gcc'"),
        ("--compile inductor --r1 1", "leave out --compile, or set --r1 0"),
    ):
        assert main(f"train digits {flags} --run {tmp_path}/run".split()) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


# Consoles, names and places

@pytest.mark.parametrize("columns", ["5", "0"])
def test_help_fits_any_console(here, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["sample", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 10 < len(lines) < 200 and max(map(len, lines)) <= 200


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1"])
def test_a_console_with_few_characters_gets_codes(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", out)
    assert main(["shapes", "digits"]) == main(["recipes"]) == 0
    out.flush()
    said = out.buffer.getvalue().decode(encoding)
    assert "digits: G, z \\u2192 x" in said and ("28\\xd728\\xd71" in said or "28×28×1" in said)


def test_names_that_are_no_text_are_escaped(here, monkeypatch):
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stderr", err)
    assert main(["sample", os.fsdecode(b"caf\xe9")]) == 2
    print(os.fsdecode(b"caf\xe9"), "→", file=err, flush=True)
    assert rb"caf\udce9" in err.buffer.getvalue()


@pytest.mark.parametrize("line, status", [
    ("recipes >&-", 0), ("recipes 2>&-", 0), ("bogus 2>&-", 2), ("bogus >&- 2>&-", 2), ("recipes <&- >&- 2>&-", 0),
    ("shapes digits --help >&-", 0), ("recipes | head -0", 141), ("bogus 2>&1 | head -0", 141)])
def test_streams_that_nobody_reads_end_quietly(here, line, status):
    words, _, rest = line.partition(" | ")
    shell = f"{{ {sys.executable} -m dcgan {words}; echo $? >status; }}" + (f" | (exec {rest})" if rest else "")
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert int(Path("status").read_text()) == status
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr and "rror" not in done.stdout


def test_a_full_disk_behind_the_output_is_a_sentence(here):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dcgan", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2 and done.stderr.startswith("dcgan: ") and done.stderr.count("\n") == 1, done.stderr


def test_a_tilde_is_the_home_folder_everywhere(run, here, monkeypatch, capsys):
    (here / "home").mkdir()
    monkeypatch.setenv("HOME", str(here / "home"))
    assert main(["train", "digits", "--run=~/r", *QUICK, "--no-save-plots"]) == 0
    assert main(["sample", "~/r", "--n", "1"]) == main(["sample", "~/r", "--n", "1", "--out", "~/one.png"]) == 0
    assert main(["evaluate", "~/r", "--out", "~", *FEW]) == 0
    (here / "home/mine.py").write_text(NETS)
    assert main(["audit", "~/mine.py:Good", "--input-shape", "1", "28", "28"]) == 1
    assert {"r", "one.png", "report.json"} <= set(os.listdir("home")) and not Path("~").exists()
    Generator.from_pretrained("~/r").save_pretrained("~/again")
    assert torch.equal(
        Generator.from_pretrained(Path("~/again")).sample(2), Generator.from_pretrained("home/r").sample(2)
    )
    capsys.readouterr()
    for words in (
        "train digits --run ~nobody_here/r",
        "sample ~nobody_here/r",
        "sample digits --out ~nobody_here/r.png",
        "audit ~nobody_here/a.py:Net",
    ):
        refused(words.split(), ["~nobody_here is no home folder"], capsys)


def test_a_folder_that_shares_a_shipped_name_is_left_alone(run, here, monkeypatch, capsys):
    (here / "digits").mkdir()
    (here / "digits/mine.txt").write_text("mine")
    assert main(["sample", "digits", "--n", "2"]) == main(["evaluate", "digits", *FEW]) == 0
    assert os.listdir("digits") == ["mine.txt"] and {
        "samples-n2-seed0.png",
        "report.json",
        "report.png",
    } <= set(os.listdir())
    capsys.readouterr()
    (here / "digits/recipe.json").write_text((run / "recipe.json").read_text())
    refused(["sample", "digits"], ["digits holds no generator yet", "--resume"], capsys)
    (run / "generator").rename(here / "digits/generator")
    assert main(["sample", "digits", "--n", "2"]) == 0 and Path("digits/samples-n2-seed0.png").exists()


def test_a_picture_is_written_as_its_name_says(run, capsys):
    for name, kind in ("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.webp", "WEBP"), ("d.png", "PNG"):
        assert main(["sample", "run", "--n", "2", "--out", name]) == 0 and Image.open(name).format == kind
    capsys.readouterr()
    for name, ending in ("e.txt", "'.txt'"), ("f", "'nothing'"), ("g.pn", "'.pn'"):
        refused(["sample", "run", "--out", name], [f"{name} ends in {ending}", ".png, .jpg"], capsys)


def test_one_image_of_many_is_drawn_alone(run, capsys):
    assert (
        main(["sample", "run", "--n", "20", "--seed", "3", "--columns", "20"])
        == main(["sample", "run", "--n", "1", "--seed", "3", "--first", "17"])
        == 0
    )
    assert capsys.readouterr().out.splitlines()[1] == "run/samples-n1-seed3-first17.png"
    many, one = (
        torch.frombuffer(
            bytearray(Image.open(f"run/samples-n{name}.png").convert("L").tobytes()), dtype=torch.uint8
        )
        for name in ("20-seed3", "1-seed3-first17")
    )
    place = many.view(32, 602)[2:30, 17 * 30 + 2:18 * 30]
    assert (one.view(32, 32)[2:30, 2:30].int() - place.int()).abs().max() <= 1
    refused("sample run --first -1".split(), ["--first is -1", "from 0"], capsys)


def test_where_nothing_may_be_written_the_folder_is_named(run, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *a: False)  # permissions don't bind root, who may run this
    for words in "train digits", "evaluate run", "train digits --run a/b/c":
        refused(
            words.split(),
            [f"Nothing can be written in {Path.cwd() / 'run' if words == 'evaluate run' else Path.cwd()};"],
            capsys,
        )
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(
        "os.replace", lambda *a: (_ for _ in ()).throw(PermissionError(13, "Permission denied", ".x.1"))
    )
    refused("sample digits --n 1".split(), [f"{Path.cwd()} can't be written (Permission denied)"], capsys)


# Sizes, files and code of others

HUGE = [
    ("train digits --filters 1000000000", ["This run would need 10^", "MiB are free"]),
    ("train digits --log-every 100000000000", ["would need 1,9"]),
    ("train digits --net paper --image-size 1073741824", ["would need"]),
    ("train digits --z-dim 100000000000", ["would need"]),
    ("train digits --filters 1" + 300 * "0", ["would need 10^"]),
    ("bench digits --filters 1000000000", ["would need"]),
    ("train digits --threads 100000", ["--threads is 100000", "at most"]),
    ("train digits --threads 100000000000", ["--threads is", "at most"]),
    ("sample digits --n 99999999999", ["--n 99,999,999,999", "would need"]),
    ("sample digits --n 1 --first 99999999999", ["would need"]),
    ("evaluate digits --n 99999999999", ["--n 99,999,999,999", "would need"]),
    (
        "audit mine.py:Good --input-shape 1 100000000 100000000",
        ["can't be audited", "allocate"],
    ),
]


@pytest.mark.parametrize("words, said", HUGE, ids=range(len(HUGE)))
def test_sizes_beyond_any_memory_are_refused_before_anything_is_made(here, capsys, words, said):
    (here / "mine.py").write_text(NETS)
    sys.dont_write_bytecode = True
    refused(words.split(), said, capsys)


def test_a_compiler_that_is_missing_is_said_before_there_is_a_folder(here, monkeypatch, capsys):
    def missing(*a, **k):
        return lambda *a: (_ for _ in ()).throw(
            RuntimeError("No working C++ compiler found\nmany more lines")
        )
    monkeypatch.setattr("torch.compile", missing)
    refused(
        ["train", "digits", "--compile", "inductor", "--run", "r", *QUICK],
        ["--compile inductor does not work", "No working C++ compiler found"],
        capsys,
    )


OWN = '''
import sys
from torch import nn
class Exits(nn.Module):
    def __init__(self): sys.exit(0)
class ExitsLater(nn.Conv2d):
    def __init__(self): super().__init__(1, 8, 3)
    def forward(self, x): sys.exit(0)
class Stopped(nn.Conv2d):
    def __init__(self): super().__init__(1, 8, 3)
    def forward(self, x): raise KeyboardInterrupt
class StoppedEarly(nn.Module):
    def __init__(self): raise KeyboardInterrupt
class Endless(nn.Module):
    def __init__(self): self.__init__()
class Own(Exception): pass
class Odd(nn.Module):
    def __init__(self): raise Own("two\\nlines")
class Plain: pass
word = "no network"
'''


@pytest.mark.parametrize(
    "name, status, said",
    [
        ("Exits", 2, ["Exits", "SystemExit"]),
        ("ExitsLater", 2, ["ExitsLater", "SystemExit"]),
        ("Stopped", 130, ["Interrupted"]),
        ("StoppedEarly", 130, ["Interrupted"]),
        ("Endless", 2, ["Endless", "RecursionError"]),
        ("Odd", 2, ["Odd", "two lines"]),
        ("Plain", 2, ["own.py:Plain", "torch.nn.Module"]),
        ("word", 2, ["own.py has no class word"]),
        ("Absent", 2, ["no class Absent"]),
    ],
)
def test_own_code_that_exits_or_is_interrupted_is_never_kept(here, capsys, name, status, said):
    (here / "own.py").write_text(OWN)
    sys.dont_write_bytecode = True
    assert main(["audit", f"own.py:{name}"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dcgan: ") and err.count("\n") == 1 and all(word in err for word in said), err


def test_a_file_that_exits_while_it_is_read_is_refused(here, capsys):
    (here / "own {x}.py").write_text("raise SystemExit(0)")
    sys.dont_write_bytecode = True
    refused(["audit", "own {x}.py:Net"], ["own {x}.py can't be run", "SystemExit"], capsys)


def test_names_on_the_hub_are_checked_and_an_absent_network_is_said(here, monkeypatch, capsys):
    def absent(*a, **k): raise OSError("no network")
    monkeypatch.setattr("socket.socket.connect", absent)
    monkeypatch.setattr("socket.getaddrinfo", absent)
    for name in "hub:", "hub:a/b/c", "hub:nobody", "hub:a b/c", "hub:../x", "hub:/x":
        refused(["sample", name], ["owner/name"], capsys)
    refused(["sample", "hub:nobody/nothing"], ["hub:nobody/nothing", "check the network"], capsys)


def test_sentences_speak_of_flags_at_the_command_line():
    say = in_shell
    assert say("go on with it by resume=True, or another run.", ["train"]) == "go on with it by --resume, or another run."
    assert say("use precision='fp32' or batch_size=32.", []) == "use --precision fp32 or --batch-size 32."
    assert say("runs/lr_g=0.1 and seed=3 exist", ["train", "--run", "seed=3"]) == "runs/lr_g=0.1 and seed=3 exist."
    assert say("z_dim is 0; it", ["--z_dim=0"]) == "--z-dim is 0; it." and say("z_dim is 0; it.", []) == "z_dim is 0; it."
    assert say("lr_g is nan; it.", ["--lr-g", "nan"]) == "--lr-g is nan; it."
    assert say("run is in epoch 2", []) == "run is in epoch 2." and say("there is no folder x", []) == "there is no folder x."
    assert say("two\n  lines?", []) == "two lines?"


def test_the_version(capsys):
    assert main(["--version"]) == main(["-V"]) == 0
    said = capsys.readouterr().out
    assert said == f"dcgan {__version__}, torch {torch.__version__}\n" * 2


@pytest.mark.parametrize("data, recipe", [("faces", "celeba64"), ("celeba", "celeba64"), ("house_numbers", "svhn32"), ("svhn", "svhn32"), ("mnist", "mnist28"), ("cifar10", "digits")])
def test_the_name_of_a_data_set_is_answered_with_a_command(data, recipe, here, capsys):
    refused(["train", data], [f"'{data}' is a data set", f"dcgan train {recipe} --data {data}"], capsys)


def test_sheets_of_several_generators_do_not_meet(here, capsys):
    for name in "digits", "mnist28":
        assert main(["sample", name, "--n", "2", "--columns", "2"]) == 0
    assert sorted(os.listdir()) == ["samples-mnist28-n2-seed0.png", "samples-n2-seed0.png"]


@pytest.mark.parametrize("argv0, found, words", [("/x/.venv/bin/dcgan", False, "/x/.venv/bin/dcgan"), ("/x/.venv/bin/dcgan", True, "dcgan"),
                                                 ("/x/a b/dcgan", False, "'/x/a b/dcgan'"), ("/x/dcgan/__main__.py", False, "dcgan")])
def test_the_command_is_named_as_the_shell_finds_it(argv0, found, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0])
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/dcgan" if found else None)
    assert typed() == words


def test_the_recipes_fit_a_narrow_screen(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(RECIPES) and max(map(len, lines)) <= 100


def test_generators_that_stay(tiny, here, capsys):
    argv = ["train", "digits", "--run", "kept", "--images", "64", "--epochs", "5", "--filters", "4", "--device", "cpu", "--verbose", "0",
            "--no-save-plots", "--keep-every", "2"]
    assert main(argv) == 0
    assert sorted(os.listdir("kept/kept")) == ["epoch-0002", "epoch-0004"]
    first, second = (Generator.from_pretrained(f"kept/kept/epoch-000{n}").sample(2) for n in (2, 4))
    assert not torch.equal(first, second) and not torch.equal(second, Generator.from_pretrained("kept").sample(2))
    refused(["train", "digits", *QUICK, "--keep-every", "-1"], ["--keep-every is -1", "whole number from 0"], capsys)


def test_a_run_that_goes_on_is_not_described_again(here, capsys):
    flags = ["--images", "64", "--filters", "4", "--device", "cpu", "--no-save-plots", "--run", "r"]
    assert main(["train", "digits", *flags, "--epochs", "1"]) == 0
    assert "multiply-adds" in (said := capsys.readouterr().out) and "kept in r" in said
    assert main(["train", "digits", *flags, "--epochs", "2", "--resume"]) == 0
    assert "multiply-adds" not in (said := capsys.readouterr().out) and "goes on in r" in said


def test_the_doctor_watches_a_run_and_reads_one(tiny, here, capsys):
    flags = ["--images", "64", "--filters", "4", "--device", "cpu", "--no-save-plots", "--log-every", "1"]
    assert main(["train", "digits", *flags, "--run", "ill", "--epochs", "2", "--lr-g", "1", "--doctor"]) == 0
    said = capsys.readouterr().out
    assert "One step moved G by" in said and "lower the learning rates" in said
    assert main(["train", "digits", *flags, "--run", "ill2", "--epochs", "2", "--lr-g", "1"]) == 0
    assert "One step moved" not in capsys.readouterr().out
    assert main(["doctor", "ill2"]) == 0
    assert "rows to step 2" in capsys.readouterr().out
    (here / "empty").mkdir()
    assert main(["doctor", "empty"]) == 0 and "no history.csv" in capsys.readouterr().out
    refused(["doctor", "nowhere"], ["There is no folder nowhere"], capsys)
    refused(["doctor"], ["dcgan doctor", "folder of the run"], capsys, framed=True)
    refused(["doctor", "ill", "--deep"], ["'--deep'"], capsys)


# What help loads, completion, and how it ends

def loaded(*argv):
    "Which of the slow libraries a fresh process has loaded after this command, and what it printed."
    program = f"""
import sys
from dcgan.cli import main
status = main({list(argv)})
slow = "torch", "numpy", "matplotlib", "PIL", "scipy", "sklearn", "torchvision", "accelerate", "huggingface_hub"
print(status, *(name for name in slow if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.split(), done.stdout


@pytest.mark.parametrize("argv", [["--help"], [], ["train", "--help"], ["bench", "-h"], ["sample", "--help"]], ids=" ".join)
def test_help_needs_no_torch(argv):
    (status, *slow), out = loaded(*argv)
    assert not slow and status == ("0" if argv else "2") and "dcgan" in out


def test_what_a_command_loads_is_seen():
    assert "torch" in loaded("recipes")[0]


def test_help_fits_a_hundred_columns_and_tells_of_completion(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100 and "--tyro-write-completion bash FILE" in out
    assert all(f" {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_s_completion_is_written(here, capsys, shell):
    assert main(["--tyro-write-completion", shell, "dcgan.sh"]) == 0 and capsys.readouterr() == ("", "")
    script = Path("dcgan.sh").read_text()
    for word in (*COMMANDS, *RECIPES, "lr-g", "keep-every", "input-shape"):
        assert word in script, f"{word} is not completed"
    if shell == "bash":
        assert subprocess.run(["bash", "-n", "dcgan.sh"]).returncode == 0, "a script that bash can read"


def test_a_second_ctrl_c_ends_with_a_word(here, monkeypatch, capsys):
    def interrupted(self): raise KeyboardInterrupt
    monkeypatch.setattr("dcgan.training.Trainer.train", interrupted)
    assert main(["train", "digits", *QUICK, "--run", "r"]) == 130
    assert capsys.readouterr() == ("", "dcgan: Interrupted.\n")


def test_the_bar_shows_the_epoch_and_the_time_left(tiny, here, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    err = io.StringIO()
    err.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", err)
    train(tiny.replace(epochs=2), verbose=1)
    assert "epoch 2:" in err.getvalue() and "/8 [" in err.getvalue() and "<00:" in err.getvalue()


def test_a_run_that_goes_on_says_one_line_more(run, capsys):
    assert main("train digits --run run --resume --epochs 2 --device cpu --precision fp32".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "goes on in" in line] and not [line for line in lines if line.startswith("layer")]


def test_from_main_to_the_loop_is_one_frame(here, monkeypatch):
    monkeypatch.setattr("dcgan.training.Trainer.train", lambda self: found.extend(own_frames()))
    def own_frames():
        return [f.function for f in inspect.stack() if f.filename.startswith(str(Path(cli.__file__).parent))]
    found = []
    assert main(["train", "digits", *QUICK, "--run", "r"]) == 0
    assert found == ["train", "main"]


# Trackers

def test_a_tracker_that_is_not_there_is_a_sentence(here, monkeypatch, capsys):
    refused("train digits --track tensorbord".split(), ["'tensorbord'", "'tensorboard'"], capsys)
    monkeypatch.setattr("dcgan.engine.processes.find_spec", lambda name: None)
    refused("train digits --track tensorboard".split(), ["--track tensorboard needs", "pip install 'dcgan[track]'"], capsys)
    refused("train digits --track wandb".split(), ["--track wandb needs", "pip install wandb"], capsys)


def test_a_run_is_tracked_from_the_command_line(here, capsys):
    pytest.importorskip("tensorboard")
    assert main(["train", "digits", *QUICK, "--no-save-plots", "--run", "r", "--track", "tensorboard"]) == 0
    assert list(Path("r/tensorboard").glob("events.*"))


def test_a_ctrl_c_that_meets_a_finaliser_is_not_lost(capsys):
    "Python can't raise there and would print a traceback and go on."
    class Thing:
        pass
    def interrupted(_): raise KeyboardInterrupt
    thing, before = Thing(), sys.unraisablehook
    ref = weakref.ref(thing, interrupted)
    with pytest.raises(KeyboardInterrupt), cli.interrupts_kept():
        del thing
        for _ in range(200):
            time.sleep(.05)
    assert ref() is None and sys.unraisablehook is before and not capsys.readouterr().err


def test_what_a_finaliser_raises_otherwise_is_reported(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    class Thing:
        def __del__(self): raise ValueError
    with cli.interrupts_kept():
        Thing()
    assert [lost.exc_type for lost in seen] == [ValueError]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_explained(name):
    "Its help comes from the comment beside the parameter: one that stands above it would be lost."
    said = to_call(COMMANDS[name]).__doc__
    assert not [flag for flag in inspect.signature(COMMANDS[name]).parameters if f":param {flag}: " not in said]
