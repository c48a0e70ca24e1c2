"Device, precision, gradient scalers, memory and threads: asked of the machine, refused in a sentence."
import dcgan.engine.devices as devices
import pytest
import torch
from dcgan.engine.devices import autocast_for, keep_memory, pick_device, pick_precision, products_pay, resident, set_threads
from dcgan.training import Trainer

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


def test_auto_is_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ValueError, match="'cuda' is not on this machine; leave it out"): pick_device("cuda")
    with pytest.raises(ValueError, match="no device 'gpu'"): pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(d) for d in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ValueError, match="'cuda:2' is not on this machine"): pick_device("cuda:2")


@pytest.mark.parametrize("bf16, capability, expected", [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")])
def test_auto_precision_of_gpus(monkeypatch, bf16, capability, expected):
    "An H100, a T4, a Pascal card, as torch would describe them."
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "This card")
    assert pick_precision("auto", CUDA) == expected and pick_precision("fp32", CUDA) == "fp32"
    if not bf16:
        with pytest.raises(ValueError, match="This card has no bf16; use --precision fp16"): pick_precision("bf16", CUDA)


def test_auto_precision_of_cpus(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    assert pick_precision("auto", CPU) == "bf16" and products_pay("bf16", CPU) and not products_pay("fp32", CPU)
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    assert pick_precision("auto", CPU) == "fp32" and not products_pay("bf16", CPU)
    with pytest.raises(ValueError, match="fp16 is for CPUs and NVIDIA or AMD GPUs"): pick_precision("fp16", MPS)
    with pytest.raises(ValueError, match="'half'"): pick_precision("half", CPU)


def test_autocast_casts_the_forwards():
    layer, x = torch.nn.Linear(3, 3), torch.randn(2, 3)
    for precision, dtype in ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16):
        with autocast_for(precision, CPU): assert layer(x).dtype == dtype


def test_fp16_trains_with_a_scaler_for_each_optimiser(tiny, tmp_path):
    short = tiny.replace(epochs=1, images=64)
    run = Trainer(short, tmp_path / "run", device="cpu", precision="fp16", verbose=0, save_plots=False).train()
    assert run.learn_d.scaler is not run.learn_g.scaler and run.learn_d.scaler.is_enabled()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for net in (run.G, run.D) for p in net.parameters())
    held = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert held["precision"] == "fp16" and held["scaler_d"]["scale"] == run.learn_d.scaler.get_scale()
    again = Trainer(short.replace(epochs=2), tmp_path / "run", device="cpu", verbose=0, save_plots=False, resume=True)
    assert again.precision == "fp16" and again.learn_g.scaler.get_scale() == run.learn_g.scaler.get_scale()
    again.train()


def test_an_overflow_skips_one_optimisers_step_and_lowers_its_scale_alone(tiny):
    run = Trainer(tiny, device="cpu", precision="fp16", verbose=0)
    x = next(run.batches.epoch(0))
    before, scales = [p.clone() for p in run.D.parameters()], [learner.scaler.get_scale() for learner in (run.learn_d, run.learn_g)]
    run.train_discriminator(x * float("inf"))
    assert all(torch.equal(a, b) for a, b in zip(before, run.D.parameters()))
    assert run.learn_d.scaler.get_scale() == scales[0] / 2 and run.learn_g.scaler.get_scale() == scales[1]


def test_without_fp16_no_scaler_is_in_the_checkpoint(tiny):
    assert not any("scaler" in name for name in Trainer(tiny, device="cpu", precision="bf16", verbose=0).parts())


def test_a_bank_goes_to_a_gpu_that_has_room(monkeypatch):
    images = torch.zeros(8, 1, 4, 4, dtype=torch.uint8)
    assert resident(images, CPU) is images
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.numel() - 1, 0))
    assert resident(images, CUDA) is images, "too little room: it stays"
    moved = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.numel(), 0))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(device))
    resident(images, CUDA)
    assert moved == [CUDA]


def test_threads():
    before = torch.get_num_threads()
    set_threads(None)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads is 0; it must be a whole number from 1"): set_threads(0)


@pytest.mark.parametrize("threads, percent, said", [(2, 100, True), (2, 50, True), (2, 10, False), (1, 100, False)])
def test_taken_cores_are_said(monkeypatch, threads, percent, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(devices.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.psutil, "cpu_percent", lambda interval: percent)
    assert ("--threads 1" in devices.crowded(CPU)) == said and not devices.crowded(CUDA)


def test_keep_memory_is_a_wish(monkeypatch):
    assert keep_memory() in (True, False)
    def none(name): raise OSError("no such library")
    monkeypatch.setattr(devices.ctypes, "CDLL", none)
    assert keep_memory() is False


def test_compile_is_handed_on(tiny):
    run = Trainer(tiny.replace(epochs=1, images=64), device="cpu", precision="fp32", verbose=0, compile="eager").train()
    plain = Trainer(tiny.replace(epochs=1, images=64), device="cpu", precision="fp32", verbose=0).train()
    assert run.history.rows[-1]["loss_d"] == pytest.approx(plain.history.rows[-1]["loss_d"], rel=1e-3)
    assert list(run.G.state_dict()) == list(plain.G.state_dict())
