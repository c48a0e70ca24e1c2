"What several tests read: the notebooks, their cells, and the module that each one writes."
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOOD = "under_the_hood"
NOTEBOOKS = sorted(p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
LESSONS = sorted((p for p in NOTEBOOKS if re.match(r"\d\d_", p.name)), key=lambda p: p.name)  # the main path, then under the hood
MODULES = sorted(p for p in ROOT.glob("dcgan/**/*.py") if p.stem not in ("__init__", "_modidx"))


@cache
def cells(path):
    "All cells of a notebook, with `source` joined to one string."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [c | {"source": "".join(c["source"])} for c in notebook["cells"]]


def code_cells(path):
    "The code cells that are not empty."
    return [c for c in cells(path) if c["cell_type"] == "code" and c["source"].strip()]


def tags(cell):
    return cell["metadata"].get("tags", [])


@cache
def checks(*paths):
    "The exercises of these lessons: name, and the check that raises on a wrong answer."
    found = {}
    for cell in (c for path in paths for c in cells(path) if "exercise" in tags(c)):
        name, space = re.search(r"^def check_(\w+)\(", cell["source"], re.M)[1], {"__name__": "exercise"}
        exec(compile(cell["source"], f"exercise {name}", "exec"), space)
        found[name] = space[f"check_{name}"]
    return found


def refusing(wrong, *lessons, also=()):
    """Two tests of the exercises of these lessons: each wrong answer (name → {what is wrong: answer}) is refused by an
    AssertionError, or by one of the errors in `also`; and every exercise has three wrong answers or more. A pair (words,
    answer) says what the message must have in it."""
    @pytest.mark.parametrize("name, answer", [(name, answer) for name, answers in wrong.items() for answer in answers])
    def test_a_wrong_answer_is_refused(name, answer):
        given = wrong[name][answer]
        words, f = given if isinstance(given, tuple) else ("", given)
        with pytest.raises((AssertionError, *also)) as refused:
            checks(*lessons)[name](f)
        assert words in str(refused.value)

    def test_every_exercise_has_its_wrong_answers():
        assert set(checks(*lessons)) == set(wrong)
        assert {name: len(answers) for name, answers in wrong.items() if len(answers) < 3} == {}

    return test_a_wrong_answer_is_refused, test_every_exercise_has_its_wrong_answers


def exported(cell):
    return re.search(r"^#\|\s*exporti?\b", cell["source"], flags=re.M) is not None


def python(cell):
    "The source without lines for IPython (`!pip …`, `%magic`), which Python can't parse."
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", cell["source"], flags=re.M)


def module_name(path):
    "As it is imported, without `dcgan.`: datasets.drawn."
    return ".".join(path.relative_to(ROOT / "dcgan").with_suffix("").parts)


def number(notebook_name):
    "Place in the reading order, which is that of the numbers; notebooks without one (index, faq, museum) come last."
    names = [p.name for p in LESSONS]
    return names.index(notebook_name) if notebook_name in names else len(names)


@cache
def written_by():
    "Module name → the notebook that writes it, relative to nbs (the line that nbdev puts on top), None if none does."
    lines = {
        module_name(p): re.search(r"File to edit: (?:\.\./)+nbs/(\S+\.ipynb)", p.read_text(encoding="utf-8"))
        for p in MODULES
    }
    return {module: line and line[1] for module, line in lines.items()}


def tracked():
    "Files that git tracks, or all but the obvious when this is not a clone."
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode == 0:
        return [p for n in git.stdout.split("\0") if n and (p := ROOT / n).is_file()]
    skip = {".venv", ".git", "_site", "node_modules", "runs", "data", "build", "dist", "__pycache__", ".ipynb_checkpoints", ".pytest_cache"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not skip & set(p.relative_to(ROOT).parts)]


def text_of(path):
    "A file's text, None for binary ones; of a notebook the sources and printed outputs, without the pictures."
    if path.suffix == ".ipynb":
        parts = []
        for c in cells(path):
            parts.append(c["source"])
            for o in c.get("outputs", []):
                data = {k: v for k, v in o.get("data", {}).items() if k.startswith("text/")}
                parts += ["".join(v) for v in [o.get("text", ""), *data.values()]]
        return "\n".join(parts)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
