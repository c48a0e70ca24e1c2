"""One contender of `peers.py` in a process of its own: somebody else's network and loop, or a recipe of this course.

Nothing of a repository is kept here: only how its loop is handed the digits, stopped in time and asked for images.
"""
import ast
import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

N = 5000                     # images that each contender is asked for
IN_SHAPE = 1, 28, 28         # as the digit classifier takes them
PICTURES = "matplotlib", "matplotlib.pyplot"                       # what a loop draws is left out
ABSENT = "torchsummary", "prettytable", "easydict", "imageio"      # imported by some, needed by no step


class Peer(NamedTuple):
    "What a repository needs in order to run here, and where its loop keeps what is asked of it."
    repository: str                    # owner/name on GitHub
    files: tuple[str, ...]             # that its folder must hold; the first is the loop
    names: tuple[str, str]             # of G and D in the loop; a dot: an attribute
    classes: dict[str, tuple]          # G's and D's class, and the arguments they are made with
    recipe: str                        # ours that has the same network
    z: Callable[[int], Tensor]         # its noise for n images
    batch: int = 128                   # images of a step
    evaluates: bool = False            # whether its pictures are made in eval mode
    zero_to_one: bool = False          # whether its images are in [0, 1] and not in [-1, 1]
    words: tuple[str, ...] = ()        # command line
    changes: tuple[tuple[str, str], ...] = ()  # what newer libraries ask for: text, and what stands there instead
    fields: tuple[tuple[str, object], ...] = ()  # of our recipe that must be changed to have the same network
    constants: tuple[tuple[str, object], ...] = ()  # that its classes read
    begin: Callable | None = None      # starts the loop, where running the file does not


def column(size: int) -> Callable[[int], Tensor]:
    "Normal noise (n, size, 1, 1)."
    return lambda n: torch.randn(n, size, 1, 1)


def uniform(size: int) -> Callable[[int], Tensor]:
    "Uniform noise (n, size) in [-1, 1]."
    return lambda n: 2 * torch.rand(n, size) - 1


def begin_r4(scope: dict) -> None:
    "Its main part asks for a GPU and for a file of settings; these are that file's, on MNIST."
    G, D = scope["generator"](100, 1, 128), scope["discriminator"](1, 128)
    scope["print_log"] = lambda *_: None
    settings = SimpleNamespace(dataset="mnist", image_size=64, batch_size=128, workers=0, base_lr=2e-4, beta1=0.5, z_size=100,
                               channel_size=1, epoches=10**6, display=10**9)
    scope["train_net"](G, D, SimpleNamespace(train_dir=".", save_dir="."), settings)


PEERS = {
    "R1": Peer("gabcastro/DCGAN-MNIST", ("src/main.py", "src/generator.py", "src/discriminator.py", "src/loss.py", "src/dataloader.py"),
               ("G", "D"), {"Generator": (64,), "Discriminator": ()}, "mnist28", lambda n: torch.randn(n, 64), zero_to_one=True),
    "R2": Peer("nakul-jindal/dcgan-in-pytorch", ("main.py", "models.py", "utils.py"), ("netG", "netD"),
               {"Generator": (100, 1, 128), "Discriminator": (1, 128)}, "mnist64", column(100), words=("--num_epochs", "1000000")),
    "R3": Peer("sobhanshukueian/DCGAN", ("DC_GAN.ipynb",), ("self.g_model", "self.d_model"), {"Generator": (), "Discriminator": ()},
               "mnist28-trainer", uniform(135), batch=16),
    "R4": Peer("last-one/DCGAN-Pytorch", ("train.py", "network.py", "utils.py"), ("G", "D"),
               {"generator": (100, 1, 128), "discriminator": (1, 128)}, "mnist64-paper", column(100), evaluates=True,
               changes=((".data[0]", ".item()"), ("(0.5, 0.5, 0.5)", "(0.5,)")), begin=begin_r4),
    "R5": Peer("Shahrullo/GAN", ("dcgan/DCGAN.ipynb",), ("G", "D"), {"Generator": (100, 32), "Discriminator": (32,)}, "svhn32-code",
               uniform(100), evaluates=True),
    "examples": Peer("pytorch/examples", ("dcgan/main.py",), ("netG", "netD"), {"Generator": (1,), "Discriminator": (1,)},
                     "mnist64-paper", column(100), batch=64, fields=(("filters", 64),),
                     words=("--dataset", "mnist", "--dataroot", ".", "--niter", "1000000", "--workers", "0"),
                     constants=(("nz", 100), ("ngf", 64), ("ndf", 64), ("nc", 1))),
}


def peer_in(folder: Path) -> str:
    "The key of the repository that a folder holds; ValueError, in a sentence, where files are missing."
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; fetch the repository first, and name where it lies.")
    found = {key: [file for file in peer.files if not (folder / file).is_file()] for key, peer in PEERS.items()}
    if whole := [key for key, missing in found.items() if not missing]:
        return max(whole, key=lambda key: len(PEERS[key].files))
    here = folder.resolve().name.lower()
    if named := [key for key, peer in PEERS.items() if peer.repository.partition("/")[2].lower() in here]:
        key = max(named, key=lambda key: len(PEERS[key].repository.partition("/")[2]))
        raise ValueError(f"{folder} lacks {', '.join(found[key])}, which {PEERS[key].repository} has; fetch it anew.")
    known = "; ".join(f"{peer.files[0]} ({peer.repository})" for peer in PEERS.values())
    raise ValueError(f"{folder} holds none of the repositories that can be run here; expected one of {known}.")


def source_of(file: Path) -> str:
    "A file's Python: a notebook's code cells without magics; statements `print x` of Python 2 get their brackets."
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join(line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!")))
    lines = text.splitlines()
    for i, line in enumerate(lines):
        word, _, rest = line.strip().partition(" ")
        if word == "print" and rest[:1] not in ("(", "=") and rest:
            lines[i] = line.replace("print ", "print(", 1) + ")"
    return "\n".join(lines) + "\n"


def copied(peer: Peer, folder: Path, target: Path) -> Path:
    "Its Python files, with the changes, in a temporary folder; the path of the loop's."
    loop = folder / peer.files[0]
    files = [loop] if loop.suffix == ".ipynb" else [*loop.parent.rglob("*.py")]
    for file in files:
        text = source_of(file)
        for old, new in peer.changes:
            text = text.replace(old, new)
        place = (target / file.relative_to(loop.parent)).with_suffix(".py")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return (target / loop.name).with_suffix(".py")


class Done(BaseException):
    "The time is over. No Exception, so that no loop catches it."


class Watch:
    "Counts images and seconds of the processor; between turns it waits for the word of the process that started this one."
    def __init__(self,
                 seconds: float,    # of the whole training
                 turn: float = 1e9,  # of a turn
                 wait: Callable[[], None] = lambda: None):  # until the next turn
        self.seconds, self.turn, self.wait = seconds, turn, wait
        self.start()

    def start(self) -> None:
        "From here on it counts."
        self.images = self.steps = 0
        self.since, self.turned = process_time(), -1e9

    def tick(self) -> None:
        "Between two steps. Done when the seconds are over."
        now = process_time()
        if now - self.since >= self.seconds:
            raise Done
        if now - self.turned >= self.turn:
            self.wait()  # before the first step, too
            self.turned = process_time()

    def saw(self,
            n: int,  # images of the step that begins
           ) -> None:
        "One step more."
        self.images += n
        self.steps += 1


def digits_for(size: int, mode: str) -> type[Dataset]:
    "A class in place of torchvision's: the 4,000 training digits as PIL images, the loop's transform applied to each at each visit."
    from torchvision.transforms.functional import to_pil_image

    from dcgan.datasets.sources import load
    bank = load("digits", image_size=size)
    images = [to_pil_image(image).convert(mode) for image in bank.images]

    class Digits(Dataset):
        def __init__(self, root=None, train=True, transform=None, **_):
            self.transform = transform or (lambda image: image)

        def __len__(self): return len(images)
        def __getitem__(self, i): return self.transform(images[i]), int(bank.labels[i])
    return Digits


def loader_for(watch: Watch) -> type[DataLoader]:
    "PyTorch's loader in this one thread. It begins again by itself, so what a loop does between epochs, pictures and files, takes no time."
    class Batches:
        def __init__(self, loader):
            self.loader, self.left = loader, iter(())
            watch.start()

        def __iter__(self): return self
        def __next__(self):
            watch.tick()
            batch = next(self.left, None)
            if batch is None:
                self.left = DataLoader.__iter__(self.loader)
                batch = next(self.left)
            watch.saw(len(batch[0]))
            return batch
        next = __next__

    class Endless(DataLoader):
        def __init__(self, dataset, batch_size=1, shuffle=False, **_):
            super().__init__(dataset, batch_size, shuffle)

        def __iter__(self): return Batches(self)
    return Endless


def stand_ins(watch: Watch) -> None:
    "This process from now on: the digits for MNIST and for SVHN, our loader, no pictures, no GPU, old names of torchvision."
    import torchvision
    torch.utils.data.DataLoader = loader_for(watch)
    torchvision.datasets.MNIST = digits_for(28, "L")
    torchvision.datasets.SVHN = digits_for(32, "RGB")
    torchvision.transforms.Scale = torchvision.transforms.Resize
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_: self


@contextlib.contextmanager
def without(names: Sequence[str]) -> Iterator[None]:
    "Inside the block, importing these modules gives something that takes every call and does nothing."
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: MagicMock() for name in names})
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


@contextlib.contextmanager
def working_in(folder: str) -> Iterator[None]:
    "Inside the block, relative paths and imports begin in this folder."
    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(folder)


def frames_of(error: BaseException) -> Iterator[dict]:
    "The local names of every call that the error came through, the innermost first."
    found, trace = [], error.__traceback__
    while trace:
        found.append(trace.tb_frame.f_locals)
        trace = trace.tb_next
    return reversed(found)


def kept_as(name: str, error: BaseException) -> nn.Module:
    "What a loop kept under a name when it was stopped."
    first, *rest = name.split(".")
    for names in frames_of(error):
        value = names.get(first)
        for attribute in rest:
            value = getattr(value, attribute, None)
        if isinstance(value, nn.Module):
            return value
    raise ValueError(f"The loop has no network {name!r}; is it another version of the repository?")


def theirs(peer: Peer, folder: Path, watch: Watch) -> tuple[nn.Module, nn.Module]:
    "Run a repository's loop until the watch stops it: its G and D."
    stand_ins(watch)
    with tempfile.TemporaryDirectory() as there, working_in(there), without((*PICTURES, *ABSENT)):
        loop = copied(peer, folder, Path(there))
        sys.argv = [loop.name, *peer.words]
        scope = {"__name__": "peer" if peer.begin else "__main__", "__file__": str(loop)}
        try:
            exec(compile(loop.read_text(encoding="utf-8"), str(loop), "exec"), scope)
            if peer.begin:
                peer.begin(scope)
        except Done as error:
            return tuple(kept_as(name, error) for name in peer.names)
    raise ValueError(f"The loop of {peer.repository} ended by itself, before its time was over.")


@torch.no_grad()
def images_of(peer: Peer, G: nn.Module, n: int) -> Tensor:
    "Its images (n, c, h, w) in [-1, 1], drawn as its own pictures are: in train mode or not, in batches of its own size."
    G.train(not peer.evaluates)
    x = torch.cat([G(peer.z(peer.batch)) for _ in range(-(-n // peer.batch))])[:n]
    return (2 * x - 1 if peer.zero_to_one else x).clamp(-1, 1)


def classes_of(peer: Peer, folder: Path) -> tuple[nn.Module, nn.Module]:
    "A repository's own G and D, freshly made: its imports, its classes of networks and its functions are run, and nothing else."
    scope = dict(peer.constants)
    with tempfile.TemporaryDirectory() as there, working_in(there), without((*PICTURES, *ABSENT)):
        loop = copied(peer, folder.resolve(), Path(there))
        for file in sorted(loop.parent.glob("*.py")):
            body = ast.parse(file.read_text(encoding="utf-8")).body
            parts = [n for n in body if isinstance(n, ast.FunctionDef) or getattr(n, "name", None) in peer.classes]
            if any(isinstance(part, ast.ClassDef) for part in parts):
                imports = [n for n in body if isinstance(n, (ast.Import, ast.ImportFrom))]
                exec(compile(ast.Module(imports + parts, []), str(file), "exec"), scope)
    return tuple(scope[name](*given) for name, given in peer.classes.items())


def mine(recipe, precision: str, watch: Watch) -> tuple[nn.Module, nn.Module]:
    "Run our trainer's own loop until the watch stops it: the generator that it would save, and D."
    from dcgan.datasets.sources import load
    from dcgan.engine.devices import tune
    from dcgan.steps import Engine
    from dcgan.training import Trainer
    tune("cpu")
    trainer = Trainer(recipe.replace(data="digits", epochs=10**6), load("digits").images, Engine("cpu", precision))
    steps = trainer.steps()
    watch.start()
    try:
        while True:
            watch.tick()
            next(steps)
            watch.saw(trainer.n)
    except Done:
        return trainer.best_G, trainer.D


def train(contender: dict, seed: int, watch: Watch) -> dict:
    "What came of a contender: images, steps, parameters, and N images (N, 1, 28, 28) in [-1, 1]."
    from dcgan.evaluation.metrics import fitted
    from dcgan.recipes import from_json
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    torch.set_num_threads(1)
    if "recipe" in contender:
        recipe = from_json(contender["recipe"]).replace(seed=seed)
        G, D = mine(recipe, contender["precision"], watch)
        x = G.sample(N, seed)
    else:
        peer = PEERS[contender["peer"]]
        peer = peer._replace(words=(*peer.words, "--manualSeed", str(seed))) if "--dataset" in peer.words else peer
        G, D = theirs(peer, Path(contender["folder"]).resolve(), watch)
        torch.manual_seed(seed)
        x = images_of(peer, G, N)
    g, d = (sum(p.numel() for p in net.parameters()) for net in (G, D))
    return {"images": watch.images, "steps": watch.steps, "g_params": g, "d_params": d, "x": fitted(x, IN_SHAPE)}


def main(words: list[str]) -> None:
    "A contender's process: what to do comes in a line of standard input, what came of it goes to a file; turns are said on the way."
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    given = json.loads(sys.stdin.readline())

    def wait() -> None:
        print("turn", file=answers, flush=True)
        if not sys.stdin.readline():
            os._exit(1)  # whoever gave the turns is gone

    watch = Watch(given["seconds"], given["turn"], wait)
    torch.save(train(given["contender"], given["seed"], watch), words[0])


if __name__ == "__main__":
    main(sys.argv[1:])
