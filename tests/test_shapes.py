"Sizes, parameters and multiply-adds of shape tables, against real PyTorch layers."
import json
from itertools import product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dcgan.shapes import ACTS, KINDS, Row, conv_out, conv_transpose_out, draw_walk, explore, rows_from, shape_table

GRID = list(product(range(1, 33), range(1, 8), range(1, 4), range(4)))  # n, k, s, p


def modules(layers, in_shape):
    "The rows as plain PyTorch layers, written here a second time so that a slip in the package shows."
    c, out = in_shape[0], []
    inputs = [in_shape, *(row.out_shape for row in shape_table(layers, in_shape))]
    for r, shape in zip(layers, inputs):
        flat = len(shape) == 1
        if r.kind == "linear":
            features = torch.Size(r.out if isinstance(r.out, tuple) else (r.out,)).numel()
            out += [nn.Flatten(), nn.Linear(torch.Size(shape).numel(), features, bias=r.bias)]
            if isinstance(r.out, tuple):
                out.append(nn.Unflatten(1, r.out))
            norm, c = (nn.BatchNorm2d, r.out[0]) if isinstance(r.out, tuple) else (nn.BatchNorm1d, r.out)
        else:
            if flat:
                out.append(nn.Unflatten(1, (c, 1, 1)))
            walk = r.kernel, r.stride, r.padding
            if r.kind == "pool":
                out.append(nn.MaxPool2d(*walk))
            else:
                layer = nn.Conv2d if r.kind == "conv" else nn.ConvTranspose2d
                out.append(layer(c, r.out, *walk, bias=r.bias))
                c = r.out
            norm = nn.BatchNorm2d
        if r.norm:
            out.append(norm(c))
    return nn.Sequential(*out).eval()


def test_formulas_on_the_whole_grid():
    refused = 0
    for formula, layer in ((conv_out, nn.Conv1d), (conv_transpose_out, nn.ConvTranspose1d)):
        for k, s, p in product(range(1, 8), range(1, 4), range(4)):
            real = layer(1, 1, k, s, p, device="meta")
            for n in range(1, 33):
                x = torch.empty(1, 1, n, device="meta")
                try:
                    m = formula(n, k, s, p)
                except ValueError:
                    refused += 1
                    try:
                        m = real(x).shape[-1]  # PyTorch refuses as well, or nothing is left
                    except RuntimeError:
                        m = 0
                    assert m < 1, (layer, n, k, s, p)
                else:
                    assert real(x).shape[-1] == m, (layer, n, k, s, p)
    assert refused > 0


def test_output_padding_on_the_whole_grid():
    "As PyTorch has it: below the stride, and what was cut off may come back."
    refused = 0
    for k, s, p, extra in product(range(1, 7), range(1, 4), range(4), range(4)):
        real = nn.ConvTranspose1d(1, 1, k, s, p, extra)
        for n in (1, 2, 5, 8):
            try:
                m = conv_transpose_out(n, k, s, p, extra)
            except ValueError:
                refused += 1
                try:
                    m = real(torch.zeros(1, 1, n)).shape[-1]
                except RuntimeError:
                    m = 0
                assert m < 1, (n, k, s, p, extra)
                continue
            x = torch.zeros(1, 1, n)
            assert (
                real(x).shape[-1]
                == m
                == nn.functional.conv_transpose1d(x, torch.zeros(1, 1, k), None, s, p, extra).shape[-1]
            )
    assert refused > 0
    for extra in (-1, 1.0, "1", None, True):
        with pytest.raises(ValueError, match="extra is .*; it must be a whole number from 0"):
            conv_transpose_out(8, 5, 2, 2, extra)


def test_tables_with_output_padding():
    rows = [Row("conv_t", 6, 5, 2, 2, True, "relu", False, 1), Row("conv_t", 3, 3, 3, 1, extra=2)]
    net = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 5, 2, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ConvTranspose2d(6, 3, 3, 3, 1, 2),
    )
    table = shape_table(rows, (4, 7, 5), None)
    assert net(torch.zeros(2, 4, 7, 5)).shape[1:] == table.out_shape and table[0].out_shape == (6, 14, 10)
    assert table.params == sum(p.numel() for p in net.parameters())
    assert "5  2  2 +1" in str(table) and "3  3  1 +2" in str(table)
    assert rows_from(json.loads(json.dumps(rows))) == tuple(rows)
    with pytest.raises(ValueError, match=r"^Layer 1 \(conv_t, k5 s2 p2 \+1\) gives 14 × 10, but 13 × 13 is promised"):
        shape_table(rows, (4, 7, 5), [13, 99])


def test_rows_saved_before_there_was_output_padding_still_load():
    saved = [["conv_t", 6, 4, 2, 1, True, "relu", False], ["conv", 3, 3]]
    assert [row.extra for row in rows_from(saved)] == [0, 0] and shape_table(saved, (4, 7, 7)).out_shape == (3, 12, 12)


@pytest.mark.parametrize("kind", ["conv", "conv_t", "pool"])
def test_tables_on_the_whole_grid(kind):
    "Sides n × 33-n, so that height and width differ; parameters of the real layer; two multiply-adds by hand."
    seen = 0
    for k, s, p in product(range(1, 8), range(1, 4), range(4)):
        if kind == "pool":
            real = nn.MaxPool2d(k, s, p)
        else:
            real = (nn.Conv2d if kind == "conv" else nn.ConvTranspose2d)(2, 3, k, s, p, device="meta")
        row = Row(kind, 0 if kind == "pool" else 3, k, s, p)
        for n in range(1, 33):
            try:
                table = shape_table([row], (2, n, 33 - n))
            except ValueError:
                continue
            x = torch.empty(1, 2, n, 33 - n, device="meta")
            assert tuple(real(x).shape[1:]) == table.out_shape
            assert table.params == sum(q.numel() for q in real.parameters())
            cells = {"conv": table.out_shape[1]*table.out_shape[2], "conv_t": n*(33 - n), "pool": 0}[kind]
            assert table.macs == 6*k*k*cells
            seen += 1
    assert seen > 1000


def test_pooling_refuses_what_pytorch_refuses():
    for n, k, s, p in GRID:
        x = torch.empty(1, 1, n, n, device="meta")
        try:
            real = nn.MaxPool2d(k, s, p)(x).shape[-1]
        except RuntimeError:
            with pytest.raises(ValueError):
                shape_table([Row("pool", 0, k, s, p)], (1, n, n))
        else:
            assert shape_table([Row("pool", 1, k, s, p)], (1, n, n)).out_shape == (1, real, real)


def test_one_way_back():
    "A transposed convolution's size is the smallest that the convolution shrinks to n."
    for n, k, s, p in GRID:
        try:
            m = conv_transpose_out(n, k, s, p)
        except ValueError:
            continue
        assert conv_out(m, k, s, p) == n
        if m > 1 and m - 1 + 2*p >= k:
            assert conv_out(m - 1, k, s, p) < n


R1_D = [Row("conv", 16, 3, 2, norm=True, act="leaky_relu"), Row("conv", 32, 5, 2, norm=True, act="leaky_relu"),
        Row("conv", 64, 5, 2, norm=True, act="leaky_relu"), Row("linear", 1)]
R1_G = [Row("conv_t", 256, 3, 2, norm=True, act="relu"), Row("conv_t", 128, 4, 1, norm=True, act="relu"),
        Row("conv_t", 64, 3, 2, norm=True, act="relu"), Row("conv_t", 1, 4, 2, act="tanh")]
R4_D = [*(Row("conv", 128*2**i, 4, 2, 1, i > 0, "leaky_relu", False) for i in range(4)), Row("conv", 1, 4, bias=False)]
R5_D = [*(Row("conv", 32*2**i, 4, 2, 1, i > 0, "leaky_relu", False) for i in range(3)), Row("linear", 1)]


def r4_g(channels):
    return [
        Row("conv_t", 1024, 4, 1, 0, True, "relu", False),
        *(Row("conv_t", f, 4, 2, 1, True, "relu", False) for f in (512, 256, 128)),
        Row("conv_t", channels, 4, 2, 1, act="tanh", bias=False),
    ]


def r5_g(norm):
    return [
        Row("linear", (128, 4, 4), norm=norm),
        *(Row("conv_t", f, 4, 2, 1, True, "leaky_relu", False) for f in (64, 32)),
        Row("conv_t", 3, 4, 2, 1, act="tanh", bias=False),
    ]


NETS = {
    "R1 D": (R1_D, (1, 28, 28), [13, 5, 1], 64_545),
    "R1 G": (R1_G, (64,), [3, 6, 13, 28], 747_841),
    "R4 D": (R4_D, (1, 64, 64), [32, 16, 8, 4, 1], 11_032_064),
    "R4 G": (r4_g(1), (100,), [4, 8, 16, 32, 64], 12_654_336),
    "R4 D, colour": (R4_D, (3, 64, 64), [32, 16, 8, 4, 1], 11_036_160),
    "R4 G, colour": (r4_g(3), (100,), [4, 8, 16, 32, 64], 12_658_432),
    "R5 D": (R5_D, (3, 32, 32), [16, 8, 4], 167_809),
    "R5 G": (r5_g(True), (100,), [4, 8, 16, 32], 372_672),
    "R5 G as its code": (r5_g(False), (100,), [4, 8, 16, 32], 372_416),
    "all kinds": (
        [
            Row("conv", 4, 3, 1, 1),
            Row("pool", 0, 2, 2),
            Row("linear", 6, norm=True, bias=False),
            Row("conv_t", 5, 3, 2, 1, norm=True, bias=False),
            Row("linear", (2, 3, 5), norm=True),
            Row("conv", 7, 2, 1, 1, bias=False),
        ],
        (3, 9, 6),
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_networks_against_real_ones(name):
    layers, in_shape, sizes, params = NETS[name]
    table, net = shape_table(layers, in_shape, sizes), modules(layers, in_shape)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        out = net(torch.zeros(2, *in_shape))
    assert tuple(out.shape[1:]) == table.out_shape
    assert flops.get_total_flops() == 2*2*table.macs  # a batch of two; a multiplication and an addition
    assert table.params == sum(p.numel() for p in net.parameters()) and params in (None, table.params)


def test_a_table_is_a_sequence_that_prints():
    table = shape_table(R1_D, [1, 28, 28])
    assert len(table) == 4 and list(table) == list(table.rows) and table[-1].out_shape == table.out_shape == (1,)
    assert table.in_shape == (1, 28, 28) and table == shape_table(R1_D, (1, 28, 28))
    assert sum(r.params for r in table) == table.params and sum(r.macs for r in table) == table.macs
    lines = str(table).splitlines()
    assert len(lines) == 1 + 1 + 4 + 1 and not any(line != line.rstrip() for line in lines)
    assert "64,545" in lines[-1] and "395,600" in lines[-1] and "16 × 13 × 13" in lines[2]
    assert (
        len(
            {
                line.rindex(number) + len(number)
                for line, number in zip(lines[2:], ("24,336", "320,000", "51,200", "64", "395,600"))
            }
        )
        == 1
    )


def test_through_json():
    for layers, in_shape, sizes, _ in NETS.values():
        again = rows_from(json.loads(json.dumps(layers)))
        assert again == tuple(layers) and all(isinstance(row, Row) for row in again)
        assert shape_table(json.loads(json.dumps(layers)), in_shape, sizes) == shape_table(layers, in_shape, sizes)
    assert rows_from([]) == ()


def test_the_printed_generator_is_refused():
    printed = [row._replace(stride=2) for row in R1_G]
    assert [r.out_shape[-1] for r in shape_table(printed, (64,))] == [3, 8, 17, 36]
    with pytest.raises(
        ValueError,
        match=r"^Layer 2 \(conv_t, k4 s2 p0\) gives 8 × 8, but 6 × 6 is promised; stride 1 would give it\.$",
    ):
        shape_table(printed, (64,), [3, 6, 13, 28])


@pytest.mark.parametrize(
    "layers, in_shape, sizes, says",
    [
        (
            R4_D,
            (1, 128, 128),
            [64, 32, 16, 8, 1],
            "Layer 5 .*gives 5 × 5, but 1 × 1 is promised; no sound stride or padding gives it, so look at the layers before it",
        ),
        (
            [Row("conv", 1, 4, 2)],
            (1, 8, 8),
            [4],
            r"Layer 1 .*gives 3 × 3, but 4 × 4 is promised; padding 1 would",
        ),
        ([Row("conv", 1, 4, 2)], (1, 8, 8), [99], "no sound stride or padding"),
        ([Row("conv", 1, 4, 2, 1)], (1, 8, 6), [4], "gives 4 × 3, but 4 × 4 is promised"),
        (
            [Row("linear", (1, 4, 4))],
            (8,),
            [5],
            r"Layer 1 \(linear\) gives 4 × 4, but 5 × 5 is promised; change its out",
        ),
        (
            [Row("conv", 1, 2), Row("conv", 1, 9)],
            (1, 4, 4),
            [4],
            "Layer 1",
        ),  # the first, not the one that crashes
        ([Row("conv", 1, 2), Row("conv", 1, 2)], (1, 4, 4), [3], "Layer 2 .*no size is promised"),
        ([Row("conv", 1, 2)], (1, 4, 4), [], "Layer 1 .*no size is promised"),
        (
            [Row("conv", 1, 2), Row("linear", 1)],
            (1, 4, 4),
            [3, 1],
            r"\[1\] are promised, but no layer is left",
        ),
    ],
)
def test_broken_promises(layers, in_shape, sizes, says):
    with pytest.raises(ValueError, match=says) as e:
        shape_table(layers, in_shape, sizes)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "row, says",
    [
        (Row("convolution", 8, 3), "kind 'convolution' is unknown; use one of " + ", ".join(KINDS)),
        (Row("conv", 8, 3, act="gelu"), "activation 'gelu' is unknown; use one of " + ", ".join(ACTS)),
        (Row("conv", 0, 3), "output is 0"),
        (Row("conv", 2.0, 3), "output is 2.0"),
        (Row("conv", (8, 4, 4), 3), "number of channels"),
        (Row("conv", True, 3), "output is True"),
        (Row("linear", (8, 4)), r"features or \(c, h, w\)"),
        (Row("linear", (8, 4, 0)), r"output is \(8, 4, 0\)"),
        (Row("conv", 8), "kernel is 0"),
        (Row("conv", 8, 3, 0), "stride is 0"),
        (Row("conv", 8, 3, 1, -1), "padding is -1"),
        (Row("conv", 8, "3"), "kernel is '3'"),
        (Row("conv", 8, 9), r"kernel of 9 does not fit on 8 \+ 2·0"),
        (Row("conv_t", 8, 1, 1, 9), "leaves none"),
        (Row("pool", 3, 2, 2), "keeps the 2 channels"),
        (Row("pool", 0, 3, 2, 2), "padding is 2"),
        (Row("conv", 8, 3, norm="yes"), "norm is 'yes'"),
        (Row("conv", 8, 3, bias=None), "bias None"),
        (["conv"], "Row 2"),
        ("conv", "Row 2"),
        (3, "Row 2"),
        (["conv", 8, 3, 1, 0, False, "none", True, 0, 9], "Row 2"),
        (["conv", 8, 3, 1, 0, False, "none", True, 9], "extra is 9"),
        (Row("linear", 8, extra=1), "extra is 1"),
        (Row("pool", 0, 2, 2, extra=1), "extra is 1"),
        (Row("conv_t", 8, 3, 2, extra=2), "output padding is 2; it must be smaller than the stride, 2"),
        (Row("conv_t", 8, 3, 2, extra=-1), "extra is -1"),
        (Row("conv_t", 8, 3, 2, extra=1.0), "extra is 1.0"),
        (Row("conv", 8, 3, extra=None), "extra is None"),
        (Row("conv", 8, 3, extra=False), "extra is False"),
    ],
)
def test_bad_rows(row, says):
    with pytest.raises(ValueError, match=says) as e:
        shape_table([Row("conv", 2, 3, 1, 1), row], (1, 8, 8))
    assert "2" in str(e.value).split(":")[0] and "\n" not in str(e.value)


@pytest.mark.parametrize("in_shape", [(1, 28), (0,), (1, 28.0, 28), (), "28", None, (1, 1, 28, 28), (True,)])
def test_bad_inputs(in_shape):
    with pytest.raises(ValueError, match="input's shape"):
        shape_table([Row("linear", 1)], in_shape)


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        shape_table([], (1, 8, 8))


@pytest.mark.parametrize("formula", [conv_out, conv_transpose_out])
@pytest.mark.parametrize(
    "walk",
    [
        (0, 1, 1, 0),
        (8, 0, 1, 0),
        (8, 3, 0, 0),
        (8, 3, 1, -1),
        (8.0, 3, 1, 0),
        (8, 3, "1", 0),
        (8, True, 1, 0),
        (8, 3, None, 0),
    ],
)
def test_senseless_numbers(formula, walk):
    with pytest.raises(ValueError, match=r"must be a whole number from [01]\.$"):
        formula(*walk)


def test_the_drawing_counts_what_touches_a_cell():
    for kind, counts in (("conv", "1 1 2 1 2 1 1 0"), ("conv_t", " ".join(["1 1", *["2 1"]*7, "1"]))):
        ax = draw_walk(8, 3, 2, 0, kind)
        assert " ".join(t.get_text() for t in ax.texts) == counts and ax.get_title().endswith(
            "8 → 3" if kind == "conv" else "8 → 17"
        )
        ax.figure.clear()
    with pytest.raises(ValueError):
        draw_walk(2, 3, 1, 0)


def test_the_explorer_answers():
    pytest.importorskip("ipywidgets")
    controls, text = explore().children[0].children
    kind, n, k, s, p = controls.children
    assert text.value == "⌊(8 + 2·1 − 4) / 2⌋ + 1 = 4"
    kind.value = "conv_t"
    assert text.value == "(8 − 1)·2 − 2·1 + 4 = 16"
    kind.value, n.value, p.value, k.value = "conv", 1, 0, 7
    assert "does not fit" in text.value


def test_rows_that_only_change_the_shape():
    table = shape_table([Row("reshape", (0, 3, 3)), Row("upsample", 0, stride=2), Row("pool", 0, 3, 3)], (135,))
    assert [row.out_shape for row in table] == [(15, 3, 3), (15, 6, 6), (15, 2, 2)] and table.params == table.macs == 0
    assert shape_table([Row("reshape", (2, 3, 4))], (24,)).out_shape == (2, 3, 4)
    for row, words in (
        (Row("reshape", (0, 4, 4)), r"135 numbers can't be seen as maps of 4 × 4"),
        (Row("reshape", 135), r"must be \(0, h, w\)"),
        (Row("upsample", 3, stride=2), "keeps the 135 channels"),
        (Row("upsample", 0, stride=0), "stride is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            shape_table([row], (135,))
