"Two processes, one run, started by torchrun as a user would: the same steps as one, one writer, one end."
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from dcgan.checkpoints import RunFolder, find_checkpoint, writing
from dcgan.data import digits
from dcgan.engine.processes import FOREIGN, LAUNCHED, TRACKERS, Processes, Track, alone_among_many, engine_for, world
from dcgan.plots import grid
from dcgan.steps import Engine
from dcgan.training import Trainer, asked_to_stop

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FLAGS = "digits --filters 4 --images 256 --batch-size 32 --log-every 4 --device cpu --precision fp32 --no-save-plots".split()
HANGS = 900  # seconds after which a process is taken to hang; on a busy machine starting two takes a minute
ALONE = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")} | {
    "OMP_NUM_THREADS": "1"
}

TEN_STEPS = """
import sys, torch
from dcgan.recipes import NETS, RECIPES
from dcgan.engine.processes import engine_for, leave
from dcgan.datasets.sources import load
from dcgan.training import Trainer
torch.set_num_threads(1)
bare = lambda table: lambda *a: tuple(row._replace(norm=False, bias=True) for row in table(*a))
NETS["bare"] = tuple(bare(table) for table in NETS["digits"])
norm = sys.argv[2] == "norm"
recipe = RECIPES["digits"].replace(net="digits" if norm else "bare", filters=4, images=320, batch_size=32, epochs=1, ema=None, shift=1, init_std=0.1,
                                     r1=0. if norm else 1.)
run = Trainer(recipe, load("digits", images=320).images, engine_for("cpu", "fp32"))
run.opt_g, run.opt_d = (torch.optim.SGD(net.parameters(), lr=0.05) for net in (run.G, run.D))
run.train()
if run.engine.main:
    torch.save({"world": run.engine.world, "rows": [[r["loss_d"], r["loss_g"]] for r in run.history.rows],
                "weights": torch.cat([p.detach().flatten() for net in (run.G, run.D) for p in run.engine.bare(net).parameters()])}, sys.argv[1])
leave(0)
"""


def ten_steps(tmp_path, launcher, norm):
    script, out = tmp_path / "ten_steps.py", tmp_path / f"{len(launcher)}.pt"
    script.write_text(TEN_STEPS)
    done = subprocess.run([*launcher, script, out, norm], env=ALONE, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr[:3000] + "\n…\n" + done.stderr[-1000:]  # a process' own words come first
    return torch.load(out, weights_only=True)


def test_ten_steps_of_two_are_those_of_one(tmp_path):
    "No BatchNorm, plain SGD, the same global batch: to 1e-5, with the shift that is drawn for the whole batch and the R1 penalty."
    one, two = ten_steps(tmp_path, [sys.executable], "bare"), ten_steps(tmp_path, TORCHRUN, "bare")
    assert (one["world"], two["world"]) == (1, 2)
    assert (one["weights"] - two["weights"]).abs().max() < 1e-5
    assert torch.tensor(one["rows"]).allclose(torch.tensor(two["rows"]), atol=1e-5), "the history is the mean over both"


def test_with_batchnorm_two_differ_from_one_by_its_statistics(tmp_path):
    one, two = ten_steps(tmp_path, [sys.executable], "norm"), ten_steps(tmp_path, TORCHRUN, "norm")
    off = (one["weights"] - two["weights"]).abs().max()
    assert 1e-5 < off < 0.1


def dcgan(*words, launcher=TORCHRUN, **options):
    return subprocess.Popen(
        [*launcher, "-m", *(["--"] if launcher is TORCHRUN else []), "dcgan", "train", *words],
        env=ALONE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


AT_THE_END = """
import atexit, sys
class Told:
    def __del__(self): print("shut down", flush=True)
told = Told()
atexit.register(print, "exit functions")
from dcgan.cli import main
sys.exit(main())
"""


def test_a_launched_command_ends_without_the_shutdown_of_the_interpreter(tmp_path):
    "A thread of torch.distributed that frees a tensor while the interpreter shuts down would abort the process."
    (script := tmp_path / "command.py").write_text(AT_THE_END)
    for launcher in [sys.executable], [*TORCHRUN, "--"]:
        words = "train", *FLAGS, "--epochs", "1", "--verbose", "0", "--run", str(tmp_path / f"run{len(launcher)}")
        done = subprocess.run([*launcher, script, *words], env=ALONE, capture_output=True, text=True, timeout=HANGS)
        assert done.returncode == 0, done.stderr
        launched = launcher != [sys.executable]
        # occurrences, not lines: two processes share one pipe, and their lines may run into each other
        assert done.stdout.count("exit functions") == (2 if launched else 1)
        assert ("shut down" in done.stdout) != launched


def test_leave_runs_exit_functions_keeps_what_was_printed_and_the_status():
    program = "import atexit; from dcgan.engine.processes import leave; atexit.register(print, 'bye'); print('hi'); leave(3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "hi\nbye\n"), done.stderr


def workers(parent):
    "The processes that torchrun started, by rank."
    found = {}
    for pid in os.listdir("/proc"):
        try:
            if int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]) != parent:
                continue
            env = dict(v.split("=", 1) for v in open(f"/proc/{pid}/environ").read().split("\0") if "=" in v)
            if "RANK" in env:
                found[int(env["RANK"])] = int(pid)
        except (OSError, ValueError):
            pass
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="finds the processes in /proc, as Linux has it")
def test_one_run_folder_and_an_end_for_all(tmp_path):
    "One folder, written by one; one process killed ends both with a sentence; what is left goes on alone."
    run = tmp_path / "run"
    launched = dcgan(*FLAGS, "--epochs", "4000", "--save-every", "1", "--run", str(run))
    deadline = time.time() + HANGS
    while not (run / "checkpoint-previous.pt").exists() and time.time() < deadline and launched.poll() is None:
        time.sleep(0.2)
    ranks = workers(launched.pid)
    assert sorted(ranks) == [0, 1], "two processes"
    os.kill(ranks[1], signal.SIGKILL)
    out, err = launched.communicate(timeout=HANGS)
    assert launched.returncode != 0 and "in each of 2 processes" in out
    assert "dcgan: Another process of this run has ended" in err and "--resume" in err
    state, note = find_checkpoint(run)
    assert not note and not [p for p in run.rglob(".*")] and state["step"] % 8 == 0
    epochs = state["step"] // 8 + 1
    alone = dcgan(
        "digits",
        "--run",
        str(run),
        "--resume",
        "--epochs",
        str(epochs),
        "--device",
        "cpu",
        launcher=[sys.executable],
    )
    out, err = alone.communicate(timeout=HANGS)
    assert alone.returncode == 0, err
    assert json.loads((run / "report.json").read_text())["processes"] == 1
    assert find_checkpoint(run)[0]["step"] == 8 * epochs


def test_other_flags_on_one_process_are_noticed(tmp_path):
    command = f"{sys.executable} -m dcgan train {' '.join(FLAGS)} --epochs 1 --seed $RANK --run {tmp_path}/run"
    done = subprocess.run(
        [*TORCHRUN, "--no-python", "bash", "-c", command],
        env=ALONE,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode != 0 and not (tmp_path / "run").exists()
    assert "Process 1 was started with another recipe than process 0 (seed: 0 → 1)" in done.stderr


def test_a_batch_that_can_not_be_shared(tmp_path):
    done = subprocess.run(
        [*TORCHRUN, "-m", "--", "dcgan", "train", *FLAGS, "--batch-size", "33", "--run", tmp_path / "run"],
        env=ALONE,
        capture_output=True,
        text=True,
        timeout=HANGS,
    )
    assert done.returncode != 0 and "--batch-size 33 for 2 processes, expected a multiple of 2" in done.stderr
    assert not (tmp_path / "run").exists()


class Two(Processes):
    "The first of two processes, as far as these methods look: the other one is never asked."
    def __init__(self, device="cpu"):
        Engine.__init__(self, device)
        self.world, self.main, self.launcher = 2, True, os.getppid()


def test_an_error_of_the_main_process_is_raised(monkeypatch):
    def fails(): raise FileExistsError("runs/x exists.")
    assert Engine().ask(lambda: 7) == 7
    with pytest.raises(FileExistsError, match="runs/x exists"):
        Engine().ask(fails)
    sent = []
    def broadcast(objects):
        sent.append(list(objects))
        return objects
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", broadcast)
    assert Two().ask(lambda: 7) == 7
    with pytest.raises(FileExistsError, match="runs/x exists"):
        Two().ask(fails)
    assert sent[0] == [7, None] and isinstance(sent[1][1], FileExistsError), "the others get it too"


def test_lost_connections_become_a_sentence_and_other_errors_stay():
    with pytest.raises(ConnectionError, match="go on with resume=True"), Two().together():
        raise RuntimeError("[gloo] Connection closed by peer")
    with pytest.raises(RuntimeError, match="mat1"), Two().together():
        raise RuntimeError("mat1 and mat2")
    with pytest.raises(RuntimeError, match="gloo"), Engine().together():
        raise RuntimeError("gloo")


def test_ctrl_c_with_others_waits_for_a_common_step(monkeypatch):
    with asked_to_stop() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert Engine().stop(asked(), 3) == signal.SIGINT and not Two().stop(asked(), 3)
        monkeypatch.setattr("accelerate.utils.gather_object", lambda marks: [0, *marks])
        assert Two().stop(asked(), 10) == signal.SIGINT and not Two().stop(0, 10)


def test_batchnorm_is_synchronised_on_gpus_only(monkeypatch):
    monkeypatch.setattr(Engine, "place", lambda self, net: net)  # no GPU is needed to see which layer would go there
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    assert Two().place(net) is net and Engine("cuda").place(net) is net
    assert isinstance(Two("cuda").place(net)[0], torch.nn.SyncBatchNorm)


# Launchers

@pytest.mark.parametrize(
    "env, several",
    [
        ({"WORLD_SIZE": ""}, False),
        ({"WORLD_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"PMI_SIZE": "2"}, True),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, True),
        ({"WORLD_SIZE": "4", "RANK": "1"}, True),
        ({}, False),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"SLURM_NTASKS": "1"}, False),
    ],
)
def test_variables_of_other_launchers_start_no_half_run(monkeypatch, env, several):
    for name in (*LAUNCHED, *FOREIGN):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert world() == 1 and type(engine_for("cpu")) is Engine
    assert ("this process trains alone" in alone_among_many()) is several
    assert {name: os.environ[name] for name in env} == env, "the environment is as it was"


def test_a_world_that_is_no_number(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'two'"):
        world()


def test_a_lost_process_is_no_write_that_failed(tmp_path):
    with pytest.raises(ConnectionError, match="gone"), writing(tmp_path):
        raise ConnectionError("gone")
    with pytest.raises(OSError, match="can't be written"), writing(tmp_path):
        raise OSError(28, "No space left on device")


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="finds the processes in /proc, as Linux has it")
def test_processes_end_with_their_launcher(tmp_path):
    run = tmp_path / "run"
    launched = dcgan(*FLAGS, "--epochs", "100000", "--save-every", "100000", "--run", str(run))
    while not (run / "checkpoint.pt").exists() and launched.poll() is None:
        time.sleep(0.2)
    ranks = workers(launched.pid)
    launched.kill()
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()):
        time.sleep(0.2)
    launched.communicate()
    assert len(ranks) == 2 and find_checkpoint(run)[0]["step"] >= 10 and not (run / "run.lock").exists()


# Trackers

def tracked(recipe, folder, *callbacks, name="tensorboard"):
    "A run that is tracked, trained."
    images = digits("train")[0][::15][:recipe.images]
    return Trainer(recipe, images, None, [folder, *callbacks, Track(name, folder)]).train()


def events(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(run / "tensorboard"), {"images": 0, "scalars": 0}).Reload()


def test_tensorboard_shows_the_history_and_the_samples(tiny, tmp_path):
    import io

    import numpy as np
    from PIL import Image
    pytest.importorskip("tensorboard")
    measured = lambda trainer: {"digit_fid": float(trainer.step)}  # noqa: E731
    trainer = tracked(tiny, RunFolder(tmp_path / "run", pictures=False), measured)
    seen, rows = events(tmp_path / "run"), trainer.history.rows
    for name in rows[0].keys() - {"step"}:
        assert [(e.step, e.value) for e in seen.Scalars(name)] == [(r["step"], np.float32(r[name])) for r in rows]
    assert [(e.step, e.value) for e in seen.Scalars("digit_fid")] == [(n, n) for n in (4, 8, 12, 16)], "what was measured"
    sheets = seen.Images("samples")
    assert [e.step for e in sheets] == [0, 3, 6, 9, 12, 15]
    image, last = Image.open(io.BytesIO(sheets[-1].encoded_image_string)), trainer.best_G.sample(64, seed=tiny.seed)
    assert np.asarray(image).shape == grid(last).shape
    assert "dcgan train digits" in str(seen.Tensors("command/text_summary")[0].tensor_proto.string_val)


def test_a_run_that_goes_on_takes_its_steps_back(tiny, tmp_path):
    "What was tracked after the checkpoint is forgotten, and the whole looks like one run."
    pytest.importorskip("tensorboard")
    class Lost:
        "A callback that fails at step 14: the last checkpoint is of step 8."
        def after_step(self, trainer):
            if trainer.step == 14:
                raise ArithmeticError
    with pytest.raises(ArithmeticError):
        tracked(tiny.replace(save_every=2), RunFolder(tmp_path / "run", pictures=False), Lost())
    assert find_checkpoint(tmp_path / "run")[0]["step"] == 8
    trainer = tracked(tiny.replace(save_every=2), RunFolder(tmp_path / "run", True, pictures=False))
    steps = [e.step for e in events(tmp_path / "run").Scalars("loss_d")]
    assert steps == [row["step"] for row in trainer.history.rows] == sorted(set(steps)) and steps[-1] == 16


class Told:
    "A tracker of accelerate's kind that notes what it is told; without pictures, like Trackio's."
    all = []
    def __init__(self, *words, **more):
        self.words, self.more, self.heard, self.ended = words, more, [], False
        Told.all.append(self)
    def start(self): pass
    def log(self, values, step=None): self.heard.append((step, values))
    def finish(self): self.ended = True


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_are_told_the_same(tiny, tmp_path, monkeypatch, name):
    from accelerate import tracking
    monkeypatch.setattr("dcgan.engine.processes.find_spec", lambda name: True)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, Told)
    trainer = tracked(tiny, RunFolder(tmp_path / "run", pictures=False), name=name)
    told = Told.all.pop()
    assert told.words == ("dcgan",) and told.more == {"name": "run"} and told.ended
    (first, says), *heard = told.heard
    assert first == 0 and says["command"].startswith("dcgan train digits")
    assert heard == [(r["step"], {k: v for k, v in r.items() if k != "step"}) for r in trainer.history.rows]


def test_only_the_main_process_tracks_and_a_lost_run_is_closed(tiny, tmp_path, monkeypatch):
    from accelerate import tracking
    monkeypatch.setattr("dcgan.engine.processes.find_spec", lambda name: True)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Told)
    engine, folder = Engine(), RunFolder(tmp_path / "run", pictures=False)
    engine.main = False
    folder.keep = folder.end = folder.begin = lambda trainer: None
    Trainer(tiny.replace(epochs=1), digits("train")[0][:256], engine, [folder, Track("wandb", folder)]).train()
    assert not Told.all
    def lost(trainer): raise ArithmeticError
    with pytest.raises(ArithmeticError):
        tracked(tiny, RunFolder(tmp_path / "other", pictures=False), lost, name="wandb")
    assert Told.all.pop().ended


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setattr("dcgan.engine.processes.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"track='{name}' needs {name}.*pip install"):
        Track(name, RunFolder(tmp_path / "run"))
    with pytest.raises(ValueError, match=f"did you mean '{name}'"):
        Track(name[:-1], RunFolder(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
