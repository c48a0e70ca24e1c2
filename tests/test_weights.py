"Lesson 23: networks saved without pickle, found by folder, name or on the hub, and loaded strictly."
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcgan.networks import Discriminator, Generator
from dcgan.recipes import RECIPES, to_json
from dcgan.weights import ASSETS, find_model, from_hub

from notebooks import HOOD, ROOT, refusing

LESSON = ROOT / "nbs" / HOOD / "23_weights.ipynb"


def pair():
    return RECIPES["digits"].replace(filters=4, z_dim=5, init_std=0.1).networks()


@pytest.fixture
def G():
    return pair()[0]


def test_shipped_names_are_found_in_the_package(tmp_path, monkeypatch, G):
    monkeypatch.setattr("dcgan.weights.ASSETS", tmp_path)
    G.save_pretrained(tmp_path / "little")
    assert torch.equal(Generator.from_pretrained("little").sample(2), G.sample(2))
    with pytest.raises(FileNotFoundError, match="(?s)'litle'.*little"):
        Generator.from_pretrained("litle")
    assert find_model("hub:owner/name") == "owner/name"


def test_an_unknown_name_asks_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("asked the network"))
    for what in "nobody/nothing", tmp_path, tmp_path / "absent", "":
        with pytest.raises(FileNotFoundError, match="hub:owner/name") as e:
            Generator.from_pretrained(what)
        assert "\n" not in str(e.value)


def config(folder, **changes):
    "Change the saved config's fields; None takes one out."
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def cut(folder, share):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])


def without(folder, name):
    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != name}, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: cut(f, 0),
        lambda f: cut(f, 0.01),
        lambda f: cut(f, 0.9),
        lambda f: (f / "model.safetensors").write_bytes(b"no tensors" * 99),
        lambda f: without(f, "layers.0.conv.weight"),
        lambda f: without(f, "layers.2.norm.running_var"),
        lambda f: save_file(
            load_file(f / "model.safetensors") | {"extra": torch.ones(2)}, f / "model.safetensors"
        ),
        lambda f: config(f, layers=None),
        lambda f: config(f, z_dim=None),
        lambda f: config(f, z_dim=6),
        lambda f: config(f, z_dim="five"),
        lambda f: config(f, layers=[["conv_t", 1, 4]]),
        lambda f: config(f, layers=7),
        lambda f: config(f, layers=[["mystery", 1, 4]]),
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").write_text("{}"),
        lambda f: (f / "config.json").write_text("[1, 2]"),
        lambda f: (f / "config.json").write_text("null"),
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
    ],
    ids=range(19),
)
def test_damaged_and_foreign_networks_are_refused_in_one_sentence(tmp_path, G, damage):
    folder = tmp_path / "generator"
    G.save_pretrained(folder)
    damage(folder)
    with pytest.raises(ValueError) as e:
        Generator.from_pretrained(tmp_path)
    assert str(folder) in str(e.value) and "\n" not in str(e.value) and "save" in str(e.value), e.value


def test_a_generator_is_no_discriminator(tmp_path, G):
    G.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no whole Discriminator"):
        Discriminator.from_pretrained(tmp_path)


# Files of others

def rewritten(folder, change):
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"module." + k: v for k, v in w.items()},
        lambda w: {"_orig_mod." + k: v for k, v in w.items()},
        lambda w: {"module._orig_mod." + k: v for k, v in w.items()},
        lambda w: {"_orig_mod.module." + k: v for k, v in w.items()},
        lambda w: {k.replace("layers.0.", "layers.0._orig_mod."): v for k, v in w.items()},
        lambda w: {"module." + k: v for k, v in w.items()} | {"n_averaged": torch.tensor(3)},
    ],
    ids=range(6),
)
def test_names_that_wrappers_wrote_are_understood(tmp_path, G, wrap):
    D = pair()[1]
    for net in G, D:
        net.save_pretrained(tmp_path)
        rewritten(tmp_path, wrap)
        again = type(net).from_pretrained(tmp_path)
        assert all(torch.equal(again.state_dict()[k], v) for k, v in net.state_dict().items())


def test_wrapped_networks_are_saved_bare(tmp_path, G):
    torch.compile(G, backend="eager").save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(G.state_dict())


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda w: {"net." + k: v for k, v in w.items()},
            "38 are missing, such as layers.0.conv.weight; 38 are unknown, such as net.layers",
        ),
        (
            lambda w: w | {"layers.0.conv.weight": w["layers.0.conv.weight"] * float("nan")},
            "1 is not finite, such as layers.0.conv.weight",
        ),
        (
            lambda w: w | {"layers.0.norm.running_var": torch.full((16,), float("inf"))},
            "1 is not finite, such as layers.0.norm.running_var",
        ),
        (
            lambda w: w | {"layers.0.conv.weight": torch.zeros(3)},
            "1 is of another shape, such as layers.0.conv.weight",
        ),
        (lambda w: {}, "38 are missing"),
    ],
    ids=range(5),
)
def test_other_weights_are_refused_in_a_short_sentence(tmp_path, G, change, said):
    G.save_pretrained(tmp_path)
    assert len(G.state_dict()) == 38
    rewritten(tmp_path, change)
    with pytest.raises(ValueError) as e:
        Generator.from_pretrained(tmp_path)
    assert said in str(e.value) and len(str(e.value)) < 250 + len(str(tmp_path)), e.value


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"layers": ' + "[" * 100_000, '{"layers": 3, "z_dim": {"a": 1}}'], ids=range(3)
)
def test_deep_and_strange_configs_are_a_sentence(tmp_path, G, text):
    G.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="no whole Generator") as e:
        Generator.from_pretrained(tmp_path)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300 + len(str(tmp_path))


# The hub

def hub(monkeypatch, answer, folder=None):
    "A hub that answers questions with `answer`, and holds what is in `folder`; the list of what was asked."
    asked = []
    def metadata(url, **kwargs):
        asked.append(url)
        assert kwargs["timeout"] <= 10
        if answer:
            raise answer
    def download(name, file, local_files_only, **kwargs):
        asked.append((file, local_files_only))
        if folder is None:
            raise FileNotFoundError("not in the cache")
        return str(folder / file)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def test_a_network_on_the_hub(tmp_path, monkeypatch, G):
    G.save_pretrained(tmp_path)
    for answer, offline in (None, False), (ConnectionError("no network"), True), (TimeoutError(), True):
        asked = hub(monkeypatch, answer, tmp_path)
        assert torch.equal(Generator.from_pretrained("hub:some-body/d.1").sample(2), G.sample(2))
        assert asked[-2:] == [("config.json", offline), ("model.safetensors", offline)] and "some-body/d.1" in asked[0]
        assert from_hub("some-body/d.1") == tmp_path and asked[-1] == ("model.safetensors", offline)


@pytest.mark.parametrize(
    "name, kind, words",
    [
        ("RepositoryNotFoundError", FileNotFoundError, "check owner and name"),
        ("RevisionNotFoundError", FileNotFoundError, "no such revision"),
        ("EntryNotFoundError", FileNotFoundError, "no network of dcgan"),
        (None, OSError, "can't be reached"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(monkeypatch, name, kind, words):
    from huggingface_hub import errors
    Error = getattr(errors, name) if name else ConnectionError
    hub(monkeypatch, Error.__new__(Error))
    with pytest.raises(kind, match=words) as e:
        Generator.from_pretrained("hub:nobody/nothing")
    assert "hub:nobody/nothing" in str(e.value) and "save it again" not in str(e.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "a", "a b/c", "/", "../a", "a/", "https://x/y", "a/b" + "c" * 100])
def test_names_that_the_hub_can_not_have_ask_no_network(monkeypatch, name):
    asked = hub(monkeypatch, None)
    with pytest.raises(ValueError, match="owner/name"):
        Generator.from_pretrained("hub:" + name)
    assert not asked


# Publishing

class Hub:
    "In place of HfApi: keeps what it is asked and sent."
    def __init__(self, token=None):
        Hub.token = token

    def create_repo(self, repo_id, **options):
        Hub.repo, Hub.options = repo_id, options
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, folder_path, **options):
        Hub.sent = {p.name: p.read_bytes() for p in folder_path.iterdir()}
        return "commit"


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    Hub.sent = Hub.repo = None
    return Hub


def test_published_with_a_card_made_of_the_run(asked, tmp_path):
    G = Generator.from_pretrained("digits")
    assert G.push_to_hub("some-body/d.1", run="digits", private=True, token="t") == "commit"
    assert (asked.repo, asked.token, asked.options["private"]) == ("some-body/d.1", "t", True)
    assert sorted(asked.sent) == ["README.md", "config.json", "model.safetensors"]
    report = json.loads((ASSETS / "digits/report.json").read_text())
    card = asked.sent["README.md"].decode()
    for part in (
        "Licence of the code: Apache 2.0", "Trained on digits, 28×28", f"{report['steps']:,} steps", report["command"],
        "digit-FID, not Inception FID: 0.57, from 4,000 samples and 1,000 held-out images of digits",
        'from dcgan.networks import Generator\nnet = Generator.from_pretrained("hub:some-body/d.1")\nimages = net.sample(64)',
    ):
        assert part in card, part
    assert "license" not in card, "the card can't know what the data allow"
    for name in "config.json", "model.safetensors":
        (tmp_path / name).write_bytes(asked.sent[name])
    assert torch.equal(Generator.from_pretrained(tmp_path).sample(3), G.sample(3))


def test_a_card_says_what_is_known(asked, tmp_path, G):
    D = pair()[1]
    D.push_to_hub("a/b")
    card = asked.sent["README.md"].decode()
    assert "import Discriminator" in card and "y = net(x)" in card and "Trained on" not in card
    G.save_pretrained(tmp_path / "generator")
    (tmp_path / "recipe.json").write_text(to_json(RECIPES["digits"].replace(seed=7)))
    for run in tmp_path, tmp_path / "generator":
        G.push_to_hub("a/b", run=run)
        card = asked.sent["README.md"].decode()
        assert "recipe `digits`, seed 7" in card and "steps" not in card and "FID" not in card
    G.push_to_hub("a/b", run="faces")
    card = asked.sent["README.md"].decode()
    assert "7,800 steps on 499,200 images" in card and "64×64 pixels, RGB" in card and "FID" not in card


def test_a_wrong_name_or_run_asks_no_network(asked, tmp_path, G):
    G.save_pretrained(tmp_path / "saved")
    for error, name, run in (
        (ValueError, "digits", None), (ValueError, "a/b/c", None), (ValueError, 3, None),
        (FileNotFoundError, "a/b", "no/run"), (FileNotFoundError, "a/b", tmp_path / "saved"), (ValueError, "a/b", 3),
    ):
        with pytest.raises(error) as e:
            G.push_to_hub(name, run=run)
        assert "\n" not in str(e.value) and e.value.args[0].endswith(".")
    for damage in "{", "[]", '{"steps": 3}', '{"steps": "three", "images": 4, "command": ""}', '{"evaluation": [1]}':
        (tmp_path / "saved/recipe.json").write_text(to_json(RECIPES["digits"]))
        (tmp_path / "saved/report.json").write_text(damage)
        with pytest.raises(ValueError, match="holds no whole recipe.json and report.json") as e:
            G.push_to_hub("a/b", run=tmp_path / "saved")
        assert ("report.json holds no names" in str(e.value)) == (damage == "[]")
    assert asked.repo is None


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("401 Client Error. Please log in."), KeyError()])
def test_a_hub_that_refuses_is_a_sentence(asked, monkeypatch, G, error):
    def refuse(*_, **__):
        raise error
    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(OSError, match="^hub:a/b can't be published .*; log in by `hf auth login`, or give a token.$") as e:
        G.push_to_hub("a/b")
    assert "\n" not in str(e.value)


# The lesson's exercises

def loads(folder):
    try:
        return Generator.from_pretrained(folder)
    except (ValueError, FileNotFoundError):
        return None


def first_that_loads(folders, refused=lambda tried: tried):
    tried = []
    for folder in folders:
        if net := loads(folder):
            return net, refused(tried)
        tried.append(folder)
    raise ValueError("none")


def by_replace(found, old, new):
    got = {name.replace(old, new): value for name, value in found.items()}
    if len(got) < len(found):
        raise ValueError("layers.0 twice")
    return got


WRONG = {
    "weight_bytes": {
        "parameters only": lambda net: sum(p.numel() * p.element_size() for p in net.parameters()),
        "always four bytes": lambda net: sum(4 * value.numel() for value in net.state_dict().values()),
        "the numbers, not the bytes": lambda net: sum(value.numel() for value in net.state_dict().values()),
        "in training": lambda net: [m.reset_running_stats() for m in net.modules() if hasattr(m, "running_var")] and 88,
    },
    "renamed": {
        "anywhere in the name": by_replace,
        "the second wins": lambda found, old, new: {
            new + name[len(old):] if name.startswith(old) else name: value for name, value in found.items()
        },
        "others are dropped": lambda found, old, new: {
            new + name[len(old):]: value for name, value in found.items() if name.startswith(old)
        },
        "in place": lambda found, old, new: [
            found.update({new + name[len(old):]: found.pop(name)}) for name in list(found) if name.startswith(old)
        ] and found,
    },
    "newest_whole": {
        "the oldest": lambda folders: first_that_loads(folders),
        "refused in the order of age": lambda folders: first_that_loads(folders[::-1], lambda tried: tried[::-1]),
        "the newest, whole or not": lambda folders: (Generator.from_pretrained(folders[-1]), []),
        "no error at the end": lambda folders: (
            first_that_loads(folders[::-1]) if any(map(loads, folders)) else (None, folders)
        ),
    },
}


test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers = refusing(WRONG, LESSON, also=(ValueError,))
