"A run as the command line makes one, in a call: what several tests train with."
from pathlib import Path

from dcgan.checkpoints import RunFolder
from dcgan.datasets.sources import load
from dcgan.engine.processes import engine_for
from dcgan.training import Progress, Trainer


def trainer(
    recipe,
    run_dir=None,
    images=None,
    labels=None,
    device="cpu",
    precision="fp32",
    verbose=0,
    save_plots=True,
    callbacks=(),
    resume=False,
    data_dir=None,
):
    "A trainer with the folder, the words and the callbacks asked for, about to train."
    folder = [] if run_dir is None else [RunFolder(run_dir, resume, save_plots)]
    said, engine = Progress(verbose), engine_for(device, precision, Path(run_dir) if resume else None)
    if images is None:
        images, labels, *_ = load(
            recipe.data,
            image_size=recipe.image_size,
            channels=recipe.channels,
            images=recipe.images,
            data_dir=data_dir,
        )
    return Trainer(recipe, images, engine, [*folder, said, *callbacks], labels if recipe.classes else None)


def train(recipe, run_dir=None, **options):
    "The same, trained."
    return trainer(recipe, run_dir, **options).train()
