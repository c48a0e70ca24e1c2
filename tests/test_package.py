"What pip installs: the wheel's content and needs, and that it runs away from the repository."
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from notebooks import ROOT, tracked

NEEDS = {
    "torch", "torchvision", "numpy", "matplotlib", "pillow", "tqdm", "filelock", "mlxtend", "torchmetrics",
    "accelerate", "psutil", "safetensors", "huggingface-hub", "tyro", "scipy", "scikit-learn",
}


def run(*command, **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of this repository, with what an earlier build left in build/."
    folder = tmp_path_factory.mktemp("build") / "copy"
    skip = shutil.ignore_patterns(".venv", ".git", "_site", "node_modules", "runs", "data", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=skip)
    (folder / "build/lib/dcgan").mkdir(parents=True)
    (folder / "build/lib/dcgan/gone.py").write_text("an old module")
    return folder


@pytest.fixture(scope="module")
def archive(copy):
    "A source archive, built from the copy."
    run(sys.executable, "setup.py", "-q", "sdist", "-d", copy.parent, cwd=copy)
    return next(copy.parent.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(archive):
    "A wheel, built from the source archive, without the network."
    run(sys.executable, "-m", "pip", "wheel", "-qq", "--no-input", "--no-deps", "--no-build-isolation", "--no-index",
        "-w", archive.parent, archive)
    return next(archive.parent.glob("*.whl"))


def test_the_source_archive_holds_the_whole_repository(archive, tmp_path):
    "Lessons, tests and Makefile among it; its tests run where it is unpacked."
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames() if not tar.getmember(name).isdir()}
        tar.extractall(tmp_path, filter="data")
    wanted = {p.relative_to(ROOT).as_posix() for p in tracked()}
    assert {"Makefile", "nbs/01_game.ipynb", "tests/test_package.py"} <= wanted <= names
    more = {n for n in names - wanted if n not in ("PKG-INFO", "setup.cfg") and ".egg-info/" not in n}
    assert not {n for n in more if not (ROOT / n).exists()}, "nothing that an earlier build left"
    unpacked = next(tmp_path.iterdir())
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_style.py", cwd=unpacked,
        env=os.environ | {"PYTHONPATH": str(unpacked)})


def test_make_wheel_says_where_it_is(copy, wheel):
    "In one sentence; `-o setup` because the copy has no .venv."
    said = run("make", "--no-print-directory", "-o", "setup", "wheel", f"BIN={Path(sys.executable).parent}", cwd=copy)
    assert said.count("\n") == 1 and said.startswith(f"The package is in dist/{wheel.name}: in Colab, upload it "), said
    ours, theirs = (set(zipfile.ZipFile(path).namelist()) for path in (copy / "dist" / wheel.name, wheel))
    assert ours == theirs and "dcgan/gone.py" not in ours and not (copy / "build").exists()


def metadata(wheel):
    with zipfile.ZipFile(wheel) as z:
        return z.read(next(n for n in z.namelist() if n.endswith(".dist-info/METADATA"))).decode()


def test_the_wheel_holds_the_package_and_its_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {n for n in names if ".dist-info/" not in n}
    wanted = {p.relative_to(ROOT).as_posix() for p in (ROOT / "dcgan").rglob("*")
              if p.is_file() and p.suffix != ".pyc" and ".ipynb_checkpoints" not in p.parts}
    assert package == wanted
    assert "dcgan/py.typed" in package
    entries = next(n for n in names if n.endswith("entry_points.txt"))
    assert zipfile.ZipFile(wheel).read(entries).decode().split() == [
        "[console_scripts]",
        "dcgan",
        "=",
        "dcgan.cli:main",
    ]
    assert any(n.endswith("/LICENSE") for n in names)


def test_the_wheel_needs_no_notebook_machinery(wheel):
    needs = re.findall(r"^Requires-Dist: ([\w-]+)([^;\n]*)(;.*)?$", metadata(wheel), re.M)
    plain = {name.replace("_", "-"): bound.strip() for name, bound, marker in needs if "extra" not in marker}
    assert set(plain) == NEEDS
    capped = {name for name, bound in plain.items() if "<" in bound or "==" in bound}
    assert capped == {"mlxtend"}, "an upper bound would make Colab install anew"
    assert "Requires-Python: >=3.10" in metadata(wheel)
    assert "License: Apache-2.0" in metadata(wheel) or "License-Expression: Apache-2.0" in metadata(wheel)


def brought(names):
    "What pip installs for these, and for what they need in turn, as this environment's packages say it."
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    seen, todo = set(), list(names)
    while todo:
        if (name := canonicalize_name(todo.pop())) in seen:
            continue
        try:
            needs = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue   # not needed on this machine
        seen.add(name)
        todo += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return seen


def test_nothing_of_the_notebook_machinery_comes_with_it():
    got = brought(NEEDS)
    assert {"torch", "sympy"} <= got, "the needs of the needs are followed"
    assert not got & {
        "nbdev", "fastcore", "execnb", "jupyter", "jupyter-core", "jupyter-client", "jupyterlab", "notebook",
        "nbconvert", "nbformat", "ipykernel", "nbval", "ipython", "ipywidgets",
    }
    assert brought(["nbval"]) & {"nbformat", "ipykernel"}, "it would be seen"


def test_a_missing_readme_breaks_nothing(tmp_path):
    for name in ("setup.py", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "dcgan").mkdir()
    assert re.fullmatch(r"\d+\.\d+\.\d+", run(sys.executable, "setup.py", "--version", cwd=tmp_path).split()[-1])


def test_the_installed_wheel_runs_elsewhere(wheel, tmp_path):
    "In a fresh environment that sees the libraries of this one, started from another folder."
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # pip would find the package there
    python = tmp_path / "fresh/bin/python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-qq",
        "--no-input",
        "--no-deps",
        "--no-index",
        wheel,
        env=env,
    )
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", "import dcgan; print(dcgan.__file__)", cwd=tmp_path, env=env)
    assert Path(where.strip()).is_relative_to(site)
    if not (ROOT / "dcgan/cli.py").exists():
        pytest.skip("lesson 33 is not there yet")
    for command in ([tmp_path / "fresh/bin/dcgan"], [python, "-m", "dcgan"]):
        out = run(*command, "--help", cwd=tmp_path, env=env)
        assert all(verb in out for verb in ("train", "sample", "shapes", "recipes"))


@pytest.mark.parametrize("given", ["03", "03_shapes", "nbs/03_shapes.ipynb"])
def test_make_takes_a_lesson_by_number_name_or_path(given):
    said = run("make", "-n", "-o", "setup", "execute", f"N={given}", cwd=ROOT)
    assert re.findall(r"nbs/\S+\.ipynb", said) == ["nbs/03_shapes.ipynb"]


@pytest.mark.parametrize("given", ["99", "3", "shapes", "03_shape"])
def test_make_runs_nothing_where_no_lesson_has_the_name(given):
    "An empty list of notebooks would be all of them."
    done = subprocess.run(["make", "-n", "-o", "setup", "nbval", f"N={given}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and f"N={given} is no lesson here; give its name or number" in done.stderr
