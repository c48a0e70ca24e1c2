"Export to ONNX: the same images from another runtime, halves that lose nothing, the noise without PyTorch, exercises."
import sys

import numpy as np
import pytest
import torch

from dcgan.cli import main
from dcgan.engine.onnx import halved, onnx_model, portable_latent, write_onnx
from dcgan.networks import Generator, init_weights, latent
from dcgan.shapes import Row

from notebooks import LESSONS, refusing

onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the dev extra")
import onnx  # noqa: E402

LESSON = next(p for p in LESSONS if p.name == "34_onnx.ipynb")
TABLES = {
    "transposed": (Row("conv_t", 8, 4, 1, 0, True, "relu"), Row("conv_t", 2, 4, 2, 1, False, "tanh", True)),
    "linear": (Row("linear", (6, 4, 4), norm=True, act="leaky_relu"), Row("conv_t", 1, 5, 2, 2, act="tanh", extra=1)),
    "upsampled": (Row("linear", (6, 4, 4), act="relu"), Row("upsample", 0, stride=2), Row("conv", 3, 3, 1, 1, True, "sigmoid")),
    "flat": (Row("linear", 12, act="relu"), Row("linear", 48, norm=True, act="tanh"), Row("reshape", (3, 4, 4))),
}


def network(table, z_law="normal"):
    "A small generator whose BatchNorm has seen a batch."
    G = init_weights(Generator(TABLES[table], 6, z_law), None)
    G(latent(32, 6, z_law))
    return G.eval()


def drawn(model, z):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["x"], {"z": z.numpy()})[0])


@pytest.mark.parametrize("table", TABLES)
def test_another_runtime_draws_the_same(table, tmp_path):
    G = network(table)
    path = write_onnx(G, tmp_path / "g.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["g.onnx"], "one file"
    for n in 1, 7:
        z = latent(n, 6, seed=3)
        with torch.no_grad():
            assert (drawn(str(path), z) - G(z)).abs().max() < 1e-4


def test_the_mode_stays_and_eval_is_exported():
    G = network("transposed")
    z = latent(5, 6)
    with torch.no_grad():
        wanted = G(z)
    state = {k: v.clone() for k, v in G.state_dict().items()}
    model = onnx_model(G.train())
    assert G.training and all(torch.equal(v, state[k]) for k, v in G.state_dict().items())
    assert (drawn(model.SerializeToString(), z) - wanted).abs().max() < 1e-4
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20


def test_halves_where_nothing_is_lost():
    G = network("transposed")
    z, kinds = latent(3, 6), {}
    for name, net in ("singles", G), ("halves", network("transposed").half().float()):
        model = halved(onnx_model(net))
        onnx.checker.check_model(model)
        kinds[name] = [t.data_type for t in model.graph.initializer if np.prod(t.dims) > 40]
        with torch.no_grad():
            assert (drawn(model.SerializeToString(), z) - net(z)).abs().max() < 1e-4
    assert set(kinds["singles"]) == {onnx.TensorProto.FLOAT} and set(kinds["halves"]) == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("call, words", [
    (lambda f: write_onnx("digits", f / "a.onnx"), ["must be a Generator"]),
    (lambda f: write_onnx(network("flat"), f / "a.pt"), ["a.pt", ".onnx"]),
    (lambda f: write_onnx(network("flat"), 3), ["3", ".onnx"]),
    (lambda f: write_onnx(network("flat"), f / "nowhere/a.onnx"), ["no folder", "nowhere"]),
])
def test_a_mistake_gets_a_sentence(call, words, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        call(tmp_path)
    assert all(w in str(e.value) for w in words) and "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs onnxscript: pip install .\.\[onnx\]"):
        onnx_model(network("flat"))


@pytest.mark.parametrize("z_law", ["normal", "uniform"])
@pytest.mark.parametrize("n, z_dim, seed, first", [(1, 1, 0, 0), (3, 24, 7, 5), (2, 100, 2**32 - 1, 33), (2, 5, 2**40, 1)])
def test_the_noise_is_portable(n, z_dim, z_law, seed, first):
    z = portable_latent(n, z_dim, z_law, seed, first)
    assert z.shape == (n, z_dim) and z.dtype == np.float32
    assert np.abs(z - latent(n, z_dim, z_law, seed, first=first).numpy()).max() < 2e-6


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("export house_numbers --onnx a.onnx".split()) == 0
    assert capsys.readouterr() == ("a.onnx\n", "")
    G, z = Generator.from_pretrained("house_numbers"), latent(2, 100, "uniform")
    with torch.no_grad():
        assert (drawn("a.onnx", z) - G(z)).abs().max() < 1e-4
    for words, said in [
        ("house_numbers --onnx a.onnx", "a.onnx exists"), ("nobody --onnx b.onnx", "'nobody'"),
        ("house_numbers --onnx b.pt", "b.pt"), ("house_numbers --onnx nowhere/b.onnx", "nowhere"),
    ]:
        assert main(["export", *words.split()]) == 2
        out, err = capsys.readouterr()
        assert out == "" and said in err and err.count("\n") == 1, err
    assert main(["export", "house_numbers"]) == 2 and "--onnx" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main("export house_numbers --onnx b.onnx".split()) == 2
    assert "pip install" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def canvas(x, levels, alpha=255, order=(1, 2, 0)):
    colours = np.broadcast_to(levels(x), (3, *x.shape[1:])).transpose(*order)
    return np.concatenate([colours, np.full((*colours.shape[:2], 1), alpha)], 2).astype(np.uint8)


def half(w): return w.astype(np.float16).astype(np.float32)


WRONG = {
    "to_canvas": {
        "cut off": lambda x: canvas(x, lambda x: (x + 1) / 2 * 255),
        "transparent": lambda x: canvas(x, lambda x: np.round((x + 1) / 2 * 255), alpha=0),
        "as if in [0, 1]": lambda x: canvas(x, lambda x: np.round(np.clip(x, 0, 1) * 255)),
        "columns for rows": lambda x: canvas(x, lambda x: np.round((x + 1) / 2 * 255), order=(2, 1, 0)),
        "256 levels times": lambda x: canvas(x, lambda x: np.minimum((x + 1) * 128, 255)),
    },
    "stored_bytes": {
        "all in halves": lambda ts: sum(2 * w.size for w in ts),
        "nearly is enough": lambda ts: sum(w.size * (2 if np.allclose(half(w), w, rtol=1e-3) else 4) for w in ts),
        "number by number": lambda ts: sum(2 * int((half(w) == w).sum()) + 4 * int((half(w) != w).sum()) for w in ts),
        "all or none": lambda ts: sum(w.size for w in ts) * (2 if all((half(w) == w).all() for w in ts) else 4),
    },
    "box_muller": {
        "log of u": lambda u: np.concatenate([np.sqrt(-2 * np.log(u[:len(u) // 2])) * f(2 * np.pi * u[len(u) // 2:]) for f in (np.cos, np.sin)]),
        "sines first": lambda u: np.concatenate([np.sqrt(-2 * np.log(1 - u[:len(u) // 2])) * f(2 * np.pi * u[len(u) // 2:]) for f in (np.sin, np.cos)]),
        "half a turn": lambda u: np.concatenate([np.sqrt(-2 * np.log(1 - u[:len(u) // 2])) * f(np.pi * u[len(u) // 2:]) for f in (np.cos, np.sin)]),
        "neighbours in pairs": lambda u: np.concatenate([np.sqrt(-2 * np.log(1 - u[::2])) * f(2 * np.pi * u[1::2]) for f in (np.cos, np.sin)]),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(
    WRONG, LESSON, also=(FloatingPointError,)
)
pytest.mark.filterwarnings("ignore::RuntimeWarning")(test_a_wrong_answer_is_refused)
