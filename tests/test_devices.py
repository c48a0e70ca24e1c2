"Device, precision, gradient scalers, memory and threads: asked of the machine, refused in a sentence."
import ctypes

import pytest
import torch

import dcgan.engine.devices as devices
from dcgan.engine.devices import compiled, keep_memory, pick_device, pick_precision, set_threads, tune

from running import train, trainer

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


def test_auto_is_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ValueError, match="'cuda' is not on this machine; leave it out"):
        pick_device("cuda")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(d) for d in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(ValueError, match="'cuda:2' is not on this machine"):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    "bf16, capability, expected", [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")]
)
def test_auto_precision_of_gpus(monkeypatch, bf16, capability, expected):
    "An H100, a T4, a Pascal card, as torch would describe them."
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "This card")
    assert pick_precision("auto", CUDA) == expected and pick_precision("fp32", CUDA) == "fp32"
    if not bf16:
        with pytest.raises(ValueError, match="This card has no bf16; use precision='fp16'"):
            pick_precision("bf16", CUDA)


def test_auto_precision_of_cpus(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    assert pick_precision("auto", CPU) == "bf16"
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    assert pick_precision("auto", CPU) == "fp32"
    with pytest.raises(ValueError, match="fp16 is for CPUs and NVIDIA or AMD GPUs"):
        pick_precision("fp16", MPS)
    with pytest.raises(ValueError, match="'half'"):
        pick_precision("half", CPU)


def test_fp16_trains_with_a_scaler_for_each_optimiser(tiny, tmp_path):
    short = tiny.replace(epochs=1, images=64)
    run = train(short, tmp_path / "run", precision="fp16", save_plots=False)
    scaler_d, scaler_g = run.engine.scaler(run.opt_d), run.engine.scaler(run.opt_g)
    assert scaler_d is not scaler_g and scaler_d.is_enabled()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for net in (run.G, run.D) for p in net.parameters())
    held = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert held["precision"] == "fp16" and held["scaler_d"]["scale"] == scaler_d.get_scale()
    again = trainer(short.replace(epochs=2), tmp_path / "run", precision="auto", save_plots=False, resume=True)
    assert again.engine.precision == "fp16"
    again.tell("begin")
    assert again.engine.scaler(again.opt_g).get_scale() == scaler_g.get_scale()
    again.tell("close")
    assert again.train().step == 2


def test_an_overflow_skips_one_optimisers_step_and_lowers_its_scale_alone(tiny):
    run = trainer(tiny, precision="fp16")
    x = next(run.batches.epoch(0))
    scalers = [run.engine.scaler(opt) for opt in (run.opt_d, run.opt_g)]
    before, scales = [p.clone() for p in run.D.parameters()], [scaler.get_scale() for scaler in scalers]
    run.train_discriminator(x * float("inf"))
    assert all(torch.equal(a, b) for a, b in zip(before, run.D.parameters()))
    assert scalers[0].get_scale() == scales[0] / 2 and scalers[1].get_scale() == scales[1]


def test_without_fp16_no_scaler_is_in_the_checkpoint(tiny):
    assert not any("scaler" in name for name in trainer(tiny, precision="bf16").parts())


def test_threads():
    before = torch.get_num_threads()
    set_threads(None)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads is 0; it must be a whole number from 1"):
        set_threads(0)


@pytest.mark.parametrize("threads, percent, said", [(2, 100, True), (2, 50, True), (2, 10, False), (1, 100, False)])
def test_taken_cores_are_said(monkeypatch, threads, percent, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(devices.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.psutil, "cpu_percent", lambda interval: percent)
    assert ("--threads 1" in devices.crowded(CPU)) == said and not devices.crowded(CUDA)


def test_keep_memory_is_a_wish(monkeypatch):
    asked = []
    monkeypatch.setattr(
        ctypes,
        "CDLL",
        lambda name: type("glibc", (), {"mallopt": staticmethod(lambda *order: asked.append(order) or 1)}),
    )
    assert keep_memory() is True and [order[0] for order in asked] == [-4, -1, -2], (
        "no mapping, no trimming, room on top"
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: type("musl", (), {}))
    assert keep_memory() is False
    def none(name): raise OSError("no such library")
    monkeypatch.setattr(devices.ctypes, "CDLL", none)
    assert keep_memory() is False


def test_compile_is_handed_on(tiny):
    run = trainer(tiny.replace(epochs=1, images=64))
    for net in run.G, run.D:
        assert compiled(net, "none") is net and net._compiled_call_impl is None
        assert compiled(net, "eager") is net and net._compiled_call_impl is not None
    run.train()
    plain = train(tiny.replace(epochs=1, images=64))
    assert run.history.rows[-1]["loss_d"] == pytest.approx(plain.history.rows[-1]["loss_d"], rel=1e-3)
    assert list(run.G.state_dict()) == list(plain.G.state_dict())


def test_a_process_is_tuned_by_name_only(tiny, monkeypatch):
    "Making an engine and a trainer leaves the process as it is; `tune` sets it, for its device."
    done = []
    monkeypatch.setattr(devices, "keep_memory", lambda: done.append("memory"))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda how: done.append(how))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: done.append(n))
    trainer(tiny)
    assert not done
    tune("cpu", threads=3)
    assert done == [3, "memory"]
    monkeypatch.setattr(devices, "pick_device", lambda device: "cuda")
    tune("cuda")
    assert done[2:] == ["high"]
