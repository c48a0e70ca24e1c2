"What a run keeps is whole, is held against what it should be before anything changes, and belongs to one process and one data set."
import datetime
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dcgan.checkpoints
from dcgan.checkpoints import ENTRIES, animate_folder, clear_leftovers, find_checkpoint, new_run, read_checkpoint, save_checkpoint
from dcgan.cli import main
from dcgan.datasets.sources import load
from dcgan.recipes import RECIPES, Recipe, from_json, to_json
from dcgan.training import STATS, History

from running import train
from running import trainer as trainer_for

SMALL = RECIPES["digits"].replace(
    filters=4,
    z_dim=6,
    images=64,
    batch_size=16,
    epochs=1,
    ema=0.9,
    log_every=3,
    sample_every=100,
    save_every=1,
)


def trained(recipe, run_dir=None, **options):
    torch.set_num_threads(1)
    return train(recipe, run_dir, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    trained(SMALL, run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def resumed(run, epochs=2, **options):
    return trained(from_json((run / "recipe.json").read_text()).replace(epochs=epochs), run, resume=True, **options)


def refusal(call, *args, **options):
    with pytest.raises((ValueError, OSError)) as e:
        call(*args, **options)
    assert "\n" not in str(e.value)
    return str(e.value)


# A checkpoint as a whole

def wider(state):
    state["G"]["layers.0.conv.weight"] = torch.ones(9, 9, 3, 3)


SPOILT = {
    "a weight less": (lambda state: state["D"].pop("layers.0.conv.weight"), "Missing key"),
    "a wider weight": (wider, "size mismatch for layers.0.conv.weight"),
    "Adam of another net": (
        lambda state: state.update(opt_d=torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict()),
        "parameter group",
    ),
    "Adam without groups": (lambda state: state["opt_g"].pop("param_groups"), "param_groups"),
    "text for Adam's state": (lambda state: state["opt_g"].update(state="none"), "does not fit its recipe"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_state_that_does_not_fit_is_said_before_anything_is_written(run, name):
    spoil, words = SPOILT[name]
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    spoil(state)
    torch.save(state, run / "checkpoint.pt")
    before = contents(run)
    said = refusal(resumed, run)
    assert words in said and str(run) in said and "start a new run" in said, said
    assert contents(run) == before


@pytest.mark.parametrize("name", ENTRIES)
def test_a_part_that_is_missing_is_named(run, name):
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    del state[name]
    torch.save(state, run / "checkpoint.pt")
    with pytest.raises(ValueError, match=f"checkpoint.pt lacks {name}$"):
        read_checkpoint(run / "checkpoint.pt", from_json((run / "recipe.json").read_bytes()))


def test_what_is_no_file_is_not_waited_for(run):
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        (run / name).unlink()
        os.mkfifo(run / name)
    assert "checkpoint.pt is missing" in refusal(resumed, run)


def test_a_run_without_a_checkpoint_says_so(run):
    for name in "checkpoint.pt", "checkpoint-previous.pt":
        (run / name).unlink()
    assert "checkpoint.pt is missing, and checkpoint-previous.pt is missing; start a new run" in refusal(resumed, run)


def test_a_recipe_nested_too_deeply_is_no_recipe(run):
    (run / "recipe.json").write_text("[" * 100_000)
    assert "This is no recipe.json" in refusal(trained, SMALL, run, resume=True)


# Nothing is written that can't be read back

@pytest.mark.parametrize(
    "field, value, plain",
    [
        ("lr_g", np.float64(1e-3), 1e-3),
        ("lr_d", Decimal("0.002"), 0.002),
        ("beta2", np.float32(0.5), 0.5),
        ("filters", np.int64(4), 4),
        ("net", np.str_("digits"), "digits"),
        ("bias", np.bool_(True), True),
        ("ema", torch.tensor(0.5), 0.5),
    ],
)
def test_values_of_other_libraries_become_plain(field, value, plain):
    held = getattr(Recipe().replace(**{field: value}), field)
    assert held == plain and type(held) is type(plain)
    recipe = Recipe().replace(**{field: value})
    assert from_json(to_json(recipe)) == recipe


@pytest.mark.parametrize(
    "field, value",
    [
        ("lr_g", "0.001"),
        ("lr_g", True),
        ("bias", 1),
        ("data", Path("pics")),
        ("data", ""),
        ("ema", "none"),
        ("channels", True),
        ("channels", 1.0),
        ("rotate", float("nan")),
        ("lr_g", [1e-3]),
        ("name", None),
    ],
)
def test_values_that_are_none_are_refused_by_name(field, value):
    assert refusal(Recipe().replace, **{field: value}).startswith(field)


def test_callbacks_numbers_of_any_library_are_kept(tmp_path):
    given = {
        "a": np.float32(0.5),
        "b": torch.tensor([2]),
        "c": Decimal("1.5"),
        "d": np.array([[3]]),
        "e": "fine",
        "f": np.str_("word"),
        "g": True,
    }
    trained(SMALL, tmp_path / "run", callbacks=[lambda trainer: given])
    row = read_checkpoint(tmp_path / "run/checkpoint.pt", SMALL)["rows"][-1]
    assert {k: row[k] for k in given} == {"a": 0.5, "b": 2, "c": 1.5, "d": 3, "e": "fine", "f": "word", "g": True}


@pytest.mark.parametrize(
    "given, words",
    [
        ({"when": datetime.date(2026, 1, 1)}, "'when' is a date"),
        ({"where": Path("x")}, "'where'"),
        (["a", 1], "a list"),
        ({"many": [np.float64(1), np.float64(2)]}, "'many' is a list"),
        ({"two": torch.ones(2)}, "'two' is a Tensor"),
        ({7: 1}, "the key 7"),
        ({"loss_d": 0.0}, "the key 'loss_d'"),
        ({"none": None}, "'none' is a NoneType"),
    ],
)
def test_what_a_history_can_not_hold_is_refused_and_nothing_is_lost(tmp_path, given, words):
    assert words in refusal(trained, SMALL, tmp_path / "run", callbacks=[lambda trainer: given])
    assert find_checkpoint(tmp_path / "run", SMALL)[0]["step"] == 4, "what was trained is saved"
    assert resumed(tmp_path / "run").step == 8


def test_a_callback_that_fails_loses_nothing(tmp_path):
    def fails(trainer): raise KeyError("a metric's own fault")
    with pytest.raises(KeyError):
        trained(SMALL.replace(save_every=5, epochs=2), tmp_path / "run", callbacks=[fails])
    assert find_checkpoint(tmp_path / "run")[0]["step"] == 4


def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(dcgan.checkpoints, "setting", lambda trainer: {"precision": Path("fp32")})
    assert "checkpoint.pt holds pickled code" in refusal(trained, SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_history_needs_no_room_for_rows_that_never_come():
    history = History(every=100_000_000_000, device=torch.device("cpu"))
    history.add(torch.ones(len(STATS)))
    assert history.filled == 1 and history.row(1, 0, 16)["loss_d"] == 1


def test_reports_are_added_to(run):
    said = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps(said | {"evaluation": {"digit_fid": 3.5}}))
    resumed(run)
    said = json.loads((run / "report.json").read_text())
    assert said["evaluation"] == {"digit_fid": 3.5} and said["steps"] == 8
    (run / "report.json").write_text("[" * 100_000)
    resumed(run, epochs=3)
    assert json.loads((run / "report.json").read_text())["steps"] == 12


def test_only_our_own_leftovers_are_cleared(run, tmp_path):
    ours = [run / ".checkpoint.pt.123", run / ".samples.png.7", run / "samples/.step-0000000.png.99"]
    (run / "generator/.generator.ab_1cd2e").mkdir()
    ours.append(run / "generator/.generator.ab_1cd2e/config.json")
    for path in ours:
        path.write_text("half")
    (run / ".generator.55").mkdir()
    theirs = [run / ".notes.2024", run / ".checkpoint.pt.bak", run / "samples/.mine.txt.1"]
    for path in theirs:
        path.write_text("mine")
    (run / ".cache.1").mkdir()
    (tmp_path / "kept").mkdir()
    (run / ".generator.56").symlink_to(tmp_path / "kept")
    clear_leftovers(run)
    assert not [p for p in [*ours, run / ".generator.55"] if p.exists()]
    assert all(p.exists() for p in [*theirs, run / ".cache.1", run / ".generator.56", tmp_path / "kept"])


# Pictures

def test_pictures_that_were_deleted_are_made_again(run):
    shutil.rmtree(run / "samples")
    (run / "samples.png").unlink()
    assert resumed(run).step == 8
    assert (run / "samples.png").is_file() and (run / "samples.gif").is_file()


def test_unreadable_pictures_and_those_of_others_are_passed_over(tmp_path):
    animate_folder(tmp_path)
    assert not (tmp_path / "samples.gif").exists()
    samples = tmp_path / "samples"
    samples.mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 90 * i).save(samples / f"step-{i}.png")
    (samples / "step-3.png").write_bytes(b"")
    (samples / "step-4.png").write_text("no picture")
    Image.new("L", (9, 9)).save(samples / "step-5.png")
    Image.new("L", (8, 8), 200).save(samples / "mine.png")
    shutil.copy(samples / "step-2.png", tmp_path / "samples.png")
    animate_folder(tmp_path)
    assert Image.open(tmp_path / "samples.gif").n_frames == 3


def test_a_short_run_s_film_ends_on_its_final_images(finished):
    film = Image.open(finished / "samples.gif")
    assert len(list((finished / "samples").iterdir())) == 1 and film.n_frames == 2
    film.seek(1)
    shown, last = (np.asarray(im.convert("L")).astype(int) for im in (film, Image.open(finished / "samples.png")))
    assert np.abs(shown - last).mean() < 4


# One process, one data set

def folder_of_images(path, seed=0, n=32):
    path.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{i:02d}.png")


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A run on a folder of one's own images."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path / "cache"))
    folder_of_images(tmp_path / "pics")
    trained(SMALL.replace(data="folder:pics", images=None), "run")
    return tmp_path


def test_a_data_folder_may_move(own, capsys):
    (own / "pics").rename(own / "photos")
    recipe = from_json((own / "run/recipe.json").read_text()).replace(epochs=2)
    before = contents(own / "run")
    assert main("train digits --run run --resume --epochs 2 --device cpu --verbose 0".split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "folder:PATH" in said and contents(own / "run") == before
    assert trained(recipe.replace(data="folder:photos"), "run", resume=True).step == 4
    assert from_json((own / "run/recipe.json").read_text()).data == "folder:photos"


def test_as_many_other_images_are_noticed(own):
    shutil.rmtree(own / "pics")
    folder_of_images(own / "pics", seed=1)
    before = contents(own / "run")
    assert "are other images" in refusal(resumed, own / "run")
    assert contents(own / "run") == before


def test_other_settings_are_said(run):
    trainer = resumed(run, precision="bf16")
    assert (
        trainer.notes[0]
        == "Since the checkpoint was saved, precision: fp32 → bf16: the run goes on, but not bit for bit."
    )
    torch.set_num_threads(2)
    trainer = train(SMALL.replace(epochs=3), run, resume=True, precision="auto")
    torch.set_num_threads(1)
    assert "threads: 1 → 2" in trainer.notes[0] and "precision" not in trainer.notes[0]


def test_fp16_starts_its_scalers_fresh(run):
    trainer = resumed(run, precision="fp16")
    assert trainer.step == 8 and "precision: fp32 → fp16" in trainer.notes[0]
    assert {"scaler_d", "scaler_g"} <= set(torch.load(run / "checkpoint.pt", weights_only=True))
    assert resumed(run, epochs=3, precision="fp32").step == 12


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(run):
    program = f"import sys, time; from pathlib import Path; from dcgan.checkpoints import alone_in\nwith alone_in(Path({str(run)!r})): print('in', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "in\n"
    before = contents(run)
    assert "Another process is training in" in refusal(resumed, run)
    assert contents(run) == before
    holder.kill()
    holder.wait()
    assert resumed(run).step == 8 and not (run / "run.lock").exists()


def test_a_run_that_moved_on_meanwhile_is_not_undone(run):
    late = trainer_for(SMALL.replace(epochs=3), run, resume=True)
    rows = resumed(run, epochs=2).history.rows
    late.train()
    assert late.step == 12 and late.history.rows[:len(rows)] == rows, "it goes on from where the other one left off"


def test_a_number_belongs_to_one_of_several_starts(tmp_path):
    found, begin = [], threading.Barrier(8)
    def take():
        begin.wait()
        found.append(new_run("digits", tmp_path).name)
    several = [threading.Thread(target=take) for _ in range(8)]
    for t in several:
        t.start()
    for t in several:
        t.join()
    assert sorted(found) == [f"digits-{i:03d}" for i in range(1, 9)]


def test_two_starts_on_one_folder(tmp_path):
    late = trainer_for(SMALL, tmp_path / "run")
    trained(SMALL, tmp_path / "run")
    before = contents(tmp_path)
    refusal(late.train)
    assert contents(tmp_path) == before


# Asked to stop

LONG = ("digits --filters 4 --images 64 --batch-size 16 --epochs 100000 --save-every 100000 --sample-every 20 "
        "--device cpu --threads 1").split()


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_request_to_end_saves_first(tmp_path, number, status):
    run = tmp_path / "run"
    p = subprocess.Popen(
        [sys.executable, "-m", "dcgan", "train", *LONG, "--run", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(list(run.glob("samples/*"))) > 2, p)
    p.send_signal(number)
    out, err = p.communicate()
    assert p.returncode == status and "stopped and saved" in out and "Traceback" not in err
    assert read_checkpoint(run / "checkpoint.pt")["step"] > 20 and (run / "samples.gif").is_file()


def test_nohup_is_respected(tmp_path):
    run = tmp_path / "run"
    p = subprocess.Popen([sys.executable, "-m", "dcgan", "train", *LONG, "--run", str(run), "--verbose", "0"],
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for(lambda: len(list(run.glob("samples/*"))) > 1, p)
    p.send_signal(signal.SIGHUP)
    wait_for(lambda: len(list(run.glob("samples/*"))) > 3, p)
    p.kill()
    p.wait()


def test_a_terminal_that_closes_ends_a_run_whole(tmp_path):
    run = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "dcgan", "train", *LONG, "--run", str(run)])
    read = threading.Thread(target=lambda: [*iter(lambda: drained(terminal), b"")], daemon=True)
    read.start()
    while len(list(run.glob("samples/*"))) < 3:
        time.sleep(0.05)
    os.close(terminal)        # the kernel sends SIGHUP,
    os.kill(pid, signal.SIGHUP)  # and so does a shell
    os.waitpid(pid, 0)
    assert read_checkpoint(run / "checkpoint.pt")["step"] > 20 and (run / "report.json").is_file()


def drained(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_numbers_of_images_are_still_compared(run):
    said = refusal(resumed, run, images=load("digits", images=48).images)
    assert "on 64 images, and the 48 of digits are other images" in said


@pytest.mark.parametrize("links", [True, False])
def test_a_folder_is_never_without_a_whole_checkpoint(tmp_path, monkeypatch, links):
    "At every change of a name there is a checkpoint.pt; where a file can't have two names, one of the two."
    seen, held = [], (os.link, os.replace, Path.unlink)

    def watched(act):
        def acted(*args, **options):
            result = act(*args, **options)
            seen.append([name for name in ("checkpoint.pt", "checkpoint-previous.pt") if (tmp_path / name).exists()])
            return result
        return acted

    def refuse(*_): raise OSError("no links here")
    save_checkpoint({"step": 0}, tmp_path)
    monkeypatch.setattr(os, "link", watched(held[0]) if links else refuse)
    monkeypatch.setattr(os, "replace", watched(held[1]))
    monkeypatch.setattr(Path, "unlink", watched(held[2]))
    for step in 1, 2:
        save_checkpoint({"step": step}, tmp_path)
    monkeypatch.undo()
    assert len(seen) >= 4 and all("checkpoint.pt" in names if links else names for names in seen), seen
    kept = [torch.load(tmp_path / name)["step"] for name in ("checkpoint.pt", "checkpoint-previous.pt")]
    assert kept == [2, 1]
