"Tests draw to files, never to a screen, and run torch on one thread: the same bits again, and no quarrel over cores."
import os
import signal

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    "Shells ignore Ctrl-C for what they start in the background, nohup SIGHUP, and children inherit that: here both arrive as usual."
    wanted = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        wanted[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny():
    "A recipe of everything that resuming must keep in step, four epochs of four steps: less than a second."
    import torch

    from dcgan.recipes import RECIPES
    torch.set_num_threads(1)
    return RECIPES["digits"].replace(
        filters=4,
        z_dim=6,
        images=256,
        batch_size=64,
        epochs=4,
        ema=0.9,
        shift=1,
        rotate=10.0,
        decay="cosine",
        log_every=3,
        sample_every=3,
        save_every=1,
    )
