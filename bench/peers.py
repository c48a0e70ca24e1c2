"""Other people's DCGANs on this course's 4,000 digits, for as many seconds of one thread as ours, measured by one classifier.

    python bench/peers.py FOLDER [FOLDER ...]             train what has no row yet, and ours beside it
    python bench/peers.py --check FOLDER [FOLDER ...]     compare a repository's own networks with ours, weights copied
    python bench/peers.py --table                         print what has been measured

A folder holds a repository as it is on GitHub: gabcastro/DCGAN-MNIST (R1), nakul-jindal/dcgan-in-pytorch (R2),
sobhanshukueian/DCGAN (R3), last-one/DCGAN-Pytorch (R4), Shahrullo/GAN (R5) or pytorch/examples. Its network and its loop run
as they are, but for the data, the stop and what newer libraries ask for (`peer.py`); its Python is run, so read it first.
Two contenders at a time take turns, a process each. Rows: dcgan/assets/peers.csv; 16 images of each: peers.npz beside it.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch
from measuring import add, command, read
from peer import PEERS, classes_of, peer_in

from dcgan.plots import write_aside
from dcgan.recipes import RECIPES, to_json
from dcgan.values import machine
from dcgan.weights import ASSETS

HERE = Path(__file__).resolve().parent
ROWS, IMAGES = ASSETS / "peers.csv", ASSETS / "peers.npz"  # lesson 14 reads them
REPORT = HERE.parent.parent / "shared/data/mnist-report-5000.npz"  # where it is not there, MNIST is downloaded
SHOWN = 16    # images kept of each contender
TURN = 20.    # seconds of a turn
DIGITS, R1, R3 = RECIPES["digits"], RECIPES["mnist28"], RECIPES["mnist28-trainer"]
OURS = {      # name: recipe, precision; in the order in which they are paired with the peers
    "digits": (DIGITS, "fp32"),
    "mnist28": (R1, "fp32"),
    "mnist28-trainer": (R3, "fp32"),
    "mnist28, batch 16": (R1.replace(batch_size=16), "fp32"),
    "digits, bf16": (DIGITS, "bf16"),
    "R3's net as digits": (DIGITS.replace(net="mnist28-trainer", filters=5, z_dim=135, bias=True), "fp32"),
    "R1's net as digits": (DIGITS.replace(net="mnist28", filters=64, z_dim=64, bias=True), "fp32"),
    "mnist28, bf16": (R1, "bf16"),
    "mnist28-trainer, bf16": (R3, "bf16"),
}


def keep(row: dict, x: torch.Tensor) -> None:
    "A row and its images more; each file is whole at any time."
    pictures = dict(np.load(IMAGES)) if IMAGES.exists() else {}
    pictures[row["contender"]] = ((x[:SHOWN, 0] + 1) * 127.5).round().byte().numpy()
    with write_aside(IMAGES) as aside, open(aside, "wb") as f:
        np.savez_compressed(f, **pictures)
    add(ROWS, row)


def commit_of(folder: Path) -> str:
    "The commit that a folder holds, or a question mark."
    words = "git", "-C", str(folder), "rev-parse", "HEAD"
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)})
    return done.stdout.strip()[:12] if done.returncode == 0 else "?"


def usable(folders: list[Path]) -> Iterator[tuple[Path, str]]:
    "The folders that hold a repository, and which; of others a sentence is said. ValueError where none does."
    sentences = []
    for folder in folders:
        try:
            yield folder, peer_in(folder)
        except ValueError as e:
            sentences.append(str(e))
    if len(sentences) == len(folders):
        raise ValueError(" ".join(sentences))
    for sentence in sentences:
        print(f"peers.py: {sentence}", file=sys.stderr)


def contenders(folders: list[Path]) -> list[dict]:
    "Peers and ours, one after the other, each as `peer.train` wants it."
    found = []
    for folder, key in usable(folders):
        found.append({"name": key, "peer": key, "folder": str(folder), "repository": PEERS[key].repository, "commit": commit_of(folder),
                      "net": PEERS[key].recipe, "batch": PEERS[key].batch, "precision": "fp32"})
    ours = [{"name": name, "recipe": to_json(recipe), "repository": "this course", "commit": commit_of(HERE.parent), "net": recipe.net,
             "batch": recipe.batch_size, "precision": precision} for name, (recipe, precision) in OURS.items()]
    both = [one for pair in zip(found, ours) for one in pair]
    return both + found[len(ours):] + ours[len(found):]


class Contender:
    "A process that trains when it is its turn."
    def __init__(self, contender: dict, given: argparse.Namespace, target: Path):
        self.contender, self.target = contender, target
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(HERE / "peer.py"), str(target)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.going = self.say(json.dumps({"contender": contender, "seconds": given.seconds, "seed": given.seed, "turn": TURN}))

    def say(self, line: str) -> bool:
        "Give it the word, and wait for the end of its turn. Whether there is another."
        try:
            print(line, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return False
        return self.process.stdout.readline() == "turn\n"

    def turn(self) -> None:
        self.going = self.going and self.say("go")

    def result(self) -> dict:
        "What came of it; ValueError where its process failed."
        self.process.stdin.close()
        if self.process.wait() or not self.target.exists():
            raise ValueError(f"{self.contender['name']} did not train; its error stands above.")
        return torch.load(self.target)


def trained(pair: list[dict], given: argparse.Namespace) -> Iterator[tuple[dict, dict]]:
    "Each contender of a pair with what came of it; they take turns."
    with tempfile.TemporaryDirectory() as folder:
        running = [Contender(one, given, Path(folder, str(i))) for i, one in enumerate(pair)]
        try:
            while any(one.going for one in running):
                for one in running:
                    one.turn()
            yield from ((one.contender, one.result()) for one in running)
        finally:
            for one in running:
                one.process.kill()


class Judged:
    "Digit-FID against the 1,000 held-out digits, and against 5,000 that nothing was tuned on."
    def __init__(self, report: Path | None):
        from report_set import report_digits

        from dcgan.data import to_x
        from dcgan.evaluation.metrics import look
        from dcgan.evaluation.reports import reference_for
        reference = reference_for("digits")
        self.judge, sets = reference.judge, {"fid_held_out": reference.held_out, "fid_report": report_digits(report)}
        self.real = {name: look(self.judge, to_x(bank.images)).features for name, bank in sets.items()}

    def __call__(self, x: torch.Tensor) -> dict:
        from dcgan.evaluation.metrics import frechet, look
        seen = look(self.judge, x).features
        return {name: round(frechet(seen, real), 3) for name, real in self.real.items()}


def row_of(contender: dict, came: dict, judged: dict, given: argparse.Namespace) -> dict:
    "A contender's row."
    said = {key: contender[key] for key in ("repository", "commit", "net", "batch", "precision")}
    return {"contender": contender["name"], **said, "cpu_seconds": given.seconds, "seed": given.seed, "images": came["images"],
            "steps": came["steps"], "g_params": came["g_params"], "d_params": came["d_params"], "samples": len(came["x"]), **judged,
            "machine": machine(), "torch": torch.__version__, "date": str(date.today()), "command": "python bench/peers.py FOLDER …"}


def floors(judged: Judged, given: argparse.Namespace) -> None:
    "Rows of the 4,000 real digits themselves, and of what resizing and turning make of them: what no generator is expected to beat."
    from dcgan.data import Batches, order, to_x
    from dcgan.datasets.sources import load
    from dcgan.evaluation.metrics import fitted
    bank = load("digits").images
    x, turned = to_x(bank), next(Batches(bank, len(bank), given.seed, rotate=20.).epoch(0))
    there_and_back = {f"real, 28→{side}→28": fitted(to_x(load("digits", image_size=side).images), (1, 28, 28)) for side in (32, 64)}
    known = {row["contender"] for row in read(ROWS)}
    for name, images in {"real digits": x, **there_and_back, "real digits, turned": turned}.items():
        if name not in known:
            facts = {"name": name, "repository": "", "commit": "", "net": "", "batch": 0, "precision": ""}
            came = {"images": 0, "steps": 0, "g_params": 0, "d_params": 0, "x": images}
            some = order(len(images), given.seed, 0)[:SHOWN]
            keep(row_of(facts, came, judged(images), given) | {"cpu_seconds": 0}, images[some])


def run(given: argparse.Namespace) -> None:
    "Train what has no row with these seconds and this seed; a row as soon as it is measured."
    torch.set_num_threads(1)
    known = {(row["contender"], float(row["cpu_seconds"]), int(row["seed"])) for row in read(ROWS)}
    missing = [one for one in contenders(given.folders) if (one["name"], given.seconds, given.seed) not in known]
    judged = Judged(given.report if given.report and given.report.exists() else None)
    floors(judged, given)
    for pair in (missing[i:i + 2] for i in range(0, len(missing), 2)):
        try:
            for contender, came in trained(pair, given):
                row = row_of(contender, came, judged(came["x"]), given)
                keep(row, came["x"])
                print(f"{row['contender']}: {row['images']:,} images, {row['steps']:,} steps, digit-FID {row['fid_report']}", flush=True)
        except ValueError as e:
            print(f"peers.py: {e}", file=sys.stderr, flush=True)


def table() -> str:
    "All rows, the same seconds together, the nearest to real digits first."
    lines = ["| contender | seconds | seed | images | steps | digit-FID, 1,000 held out | digit-FID, 5,000 for reports |", "|---|---|---|---|---|---|---|"]
    for row in sorted(read(ROWS), key=lambda row: (float(row["cpu_seconds"]), float(row["fid_report"]))):
        name = f"{row['contender']}: {row['repository']}" if row["contender"] in PEERS else row["contender"]
        lines.append(f"| {name} | {float(row['cpu_seconds']):.0f} | {row['seed']} | {int(row['images']):,} | {int(row['steps']):,} "
                     f"| {float(row['fid_held_out']):,.1f} | {float(row['fid_report']):,.1f} |")
    where = dict.fromkeys(f"{row['machine']}, torch {row['torch']}, {row['date']}" for row in read(ROWS))
    return "\n".join([*lines, "", *where]) if where else f"Nothing has been measured yet: {ROWS.name} is not there."


@torch.no_grad()
def check(folder: Path, key: str) -> list[str]:
    "A line for G and one for D: how a repository's own network and ours, its weights copied, differ."
    peer = PEERS[key]
    recipe = RECIPES[peer.recipe].replace(**dict(peer.fields))
    torch.manual_seed(0)
    z = peer.z(8)
    inputs = (z, z.flatten(1)), (torch.rand(8, *recipe.x_shape) * 2 - 1,) * 2
    lines = []
    for name, own, net, (x, y) in zip("GD", classes_of(peer, folder), recipe.networks(), inputs):
        net.load_state_dict(dict(zip(net.state_dict(), own.state_dict().values())))
        gaps = []
        for mode in True, False:
            theirs, mine = own.train(mode)(x), net.train(mode)(y)
            ends = theirs.min() >= 0 and name == "D"  # with a sigmoid, which ours leaves to the loss
            mine = mine.sigmoid() if ends else mine
            gaps.append(0. if torch.equal(theirs.flatten(), mine.flatten()) else (theirs.flatten() - mine.flatten()).abs().max().item())
        size = sum(p.numel() for p in net.parameters())
        said = "every output bit is the same" if max(gaps) == 0 else f"outputs differ by up to {max(gaps):.1g}"
        lines.append(f"{key}, {name} of {peer.repository} against {recipe.name}: {size:,} parameters, {said}")
    return lines


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="repositories")
    parser.add_argument("--check", action="store_true", help="compare networks, train nothing")
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    parser.add_argument("--seconds", type=float, default=240., help="of one thread, for each contender")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=REPORT, help="the 5,000 digits for reports, where MNIST itself can't be had")
    given = parser.parse_args(words)
    if not 0 < given.seconds < 1e6:
        raise ValueError(f"--seconds is {given.seconds}; it must be above 0.")
    if given.table:
        print(table())
    elif not given.folders:
        raise ValueError("Name the folders of the repositories; python bench/peers.py --help says which.")
    elif given.check:
        print("\n".join(line for folder, key in usable(given.folders) for line in check(folder, key)))
    else:
        run(given)
        print(table())


if __name__ == "__main__":
    command(main)
