"""Reading order is import order on the main path; the spine imports no side room; no imports go in a circle."""
import ast
import io
import json
import os
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from pyflakes import api, reporter

from notebooks import HOOD, LESSONS, MODULES, NOTEBOOKS, ROOT, code_cells, module_name, python, tags, written_by

HEAVY = [
    "pandas", "sklearn", "scipy", "mlxtend", "torchmetrics", "torchvision", "torch._dynamo", "accelerate",
    "IPython",
]
SPINE = [
    "values", "weights", "losses", "game", "plots", "shapes", "networks", "data", "steps", "training", "catalogue", "recipes",
    "checkpoints", "doctor", "latent", "features",
]
LOW = "values", "weights"  # taught under the hood, imported from everywhere
ROOMS = ["datasets", "evaluation", "engine"]  # side rooms; beside them, under the hood too: audit, cli
RESULTS = 12  # from this lesson on, the main path may read data sets and metrics


def imports(source, here=""):
    "The package's modules that `source`, in module `here`, imports, as (module without dcgan., names), names None for `import dcgan.x`."
    package = ["dcgan", *here.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((a.name.partition(".")[2], None) for a in node.names if a.name.split(".")[0] == "dcgan")
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            parts = [*base, *(node.module.split(".") if node.module else [])]
            if parts[0] == "dcgan":
                yield ".".join(parts[1:]), [a.name for a in node.names]


def faults(source, allowed, here=""):
    "Sentences about imports of the package that are not by name, or from a module that `allowed` refuses."
    for module, names in imports(source, here):
        if names is None:
            yield f"`import dcgan.{module}`: import what you need by name, from its module"
        elif not module:
            if set(names) - {"__version__"}:
                yield f"`from dcgan import {', '.join(names)}`: import by name, from its module"
        elif module != "datasets" and module not in written_by():
            yield f"`from dcgan.{module} import …`: no lesson writes this module"
        elif not allowed(module):
            yield f"`from dcgan.{module} import …`: not from here"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            yield f"`from {node.module} import *`: no star imports"


def allowed_in(path, own=False):
    "Which modules a lesson's cells may import: the main path from its earlier lessons, results also from side rooms; under the hood all."
    main_path = [p.name for p in LESSONS if HOOD not in p.parts]
    if path.name not in main_path:
        return lambda module: True
    here = main_path.index(path.name)
    def allowed(module):
        notebook = written_by().get(module)
        if module in LOW or int(path.name[:2]) >= RESULTS and module.split(".")[0] in (*ROOMS, "audit"):
            return True
        return notebook in main_path and main_path.index(notebook) < here + own
    return allowed


def found_in(path):
    "The modules that a lesson's cells import and should not, and other faults."
    for i, cell in enumerate(code_cells(path)):
        # An exercise stands alone, as its student sees it, and so does a lesson's second module:
        # both may import what their own lesson exported.
        own = "exercise" in tags(cell) or cell["source"].startswith("#| export ")
        for fault in faults(python(cell), allowed_in(path, own)):
            yield i, fault


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_import_from_earlier_lessons(path):
    found = {fault for _, fault in found_in(path)}
    assert not found, sorted(found)


def graph():
    "Module → the modules of the package that it imports, __init__ files left out."
    return {
        module_name(p): {m for m, _ in imports(p.read_text(encoding="utf-8"), module_name(p))} - {""}
        for p in MODULES
    }


def test_no_imports_go_in_a_circle():
    known = graph()
    known["datasets"] = {"datasets.sources"}
    assert list(TopologicalSorter(known).static_order())
    with pytest.raises(ValueError):
        list(TopologicalSorter(known | {"plots": {"cli"}}).static_order())


def spine_faults(known):
    "What a module of the spine imports that is not an earlier module of the spine."
    for module, names in known.items():
        if module in SPINE:
            yield from (f"{module} imports {name}" for name in sorted(names) if name not in SPINE[:SPINE.index(module)])


def test_the_spine_imports_no_side_room():
    assert not list(spine_faults(graph()))
    assert list(spine_faults({"plots": {"engine.devices"}})) and list(spine_faults({"plots": {"steps"}}))
    assert not list(spine_faults({"steps": {"plots", "losses"}, "engine.devices": {"steps"}}))


def test_every_module_has_its_room():
    for module in graph():
        assert module in (*SPINE, "audit", "cli", "__main__") or module.split(".")[0] in ROOMS, (
            f"dcgan.{module} has no place in the house"
        )


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_import_by_name(path):
    found = list(faults(path.read_text(encoding="utf-8"), lambda module: True, module_name(path)))
    assert not found, f"dcgan/{path.name}: " + "; ".join(found)


def test_the_rules_are_seen_broken():
    for source in (
        "import dcgan", "import dcgan.cli", "from dcgan import plots", "from dcgan.nothing import x",
        "from torch import *",
    ):
        assert list(faults(source, lambda module: True)), f"not noticed: {source}"
    first = next(p for p in LESSONS if HOOD not in p.parts and p.name > "02")
    for source in (
        "from dcgan.cli import main",
        "def f():\n    from dcgan.training import Trainer",
        "from dcgan.datasets.sources import load",
    ):
        assert list(faults(source, allowed_in(first))), f"not noticed: {source}"
    game = next(p for p in LESSONS if p.stem == "01_game")
    assert list(faults("from dcgan.losses import d_loss", allowed_in(game)))
    assert not list(faults("from dcgan.losses import d_loss", allowed_in(game, own=True)))
    assert not list(
        faults(
            "from dcgan.losses import d_loss\nfrom dcgan import __version__\nimport torch", allowed_in(first)
        )
    )


def test_every_module_has_its_notebook():
    "All but `__main__`, which nbdev can't name; a module whose notebook is gone is left over."
    for module, notebook in written_by().items():
        if module != "__main__":
            assert notebook, f"dcgan.{module} was not written by nbdev_export: the package is made from the notebooks"
            assert (ROOT / "nbs" / notebook).exists(), f"nbs/{notebook} is gone: delete dcgan.{module}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_exported_code_stands_alone(path):
    "No name that lives only in the notebook, no import that nothing uses."
    out = io.StringIO()
    api.check(path.read_text(encoding="utf-8"), f"dcgan/{path.name}", reporter.Reporter(out, out))
    assert not out.getvalue()


def test_each_module_imports_alone():
    "Each in a process of its own, forked from one that has loaded torch, numpy and nothing else of ours."
    program = f"""
import json, os, sys, traceback
import torch
for name in {[module_name(p) for p in MODULES if p.stem != "__main__"]}:
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            __import__("dcgan." + name)
        except BaseException:
            print(name, "does not import:", traceback.format_exc(), flush=True)
        os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout


def loaded(module, names):
    "Which of the libraries a fresh process has loaded after importing `module`."
    program = f"import json, sys, {module}; print(json.dumps([name for name in {names} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "module, more",
    [
        ("dcgan.networks", ["matplotlib", "PIL", "tyro", "psutil"]),
        ("dcgan.training", ["tyro"]),
        ("dcgan.cli", []),
    ],
)
def test_imports_are_light(module, more):
    "By what they load; how long that takes is printed by bench/overheads.py."
    assert not loaded(module, HEAVY + more)


def test_what_an_import_loads_is_seen():
    assert loaded("dcgan.plots", ["PIL", "pandas"]) == ["PIL"]
