"Every exercise of every lesson: the stub fails its check, the hidden solution passes it."
import ast
import re

import pytest

from notebooks import LESSONS, cells, tags

KINDS = {"predict", "fill", "debug", "measure"}
EXERCISES = [(path, i) for path in LESSONS for i, c in enumerate(cells(path)) if "exercise" in tags(c)]
SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>\s*```python\n(.*?)```\s*</details>", re.S)


def test_there_are_exercises():
    assert EXERCISES


@pytest.mark.parametrize("path, i", EXERCISES, ids=lambda v: getattr(v, "stem", v))
def test_exercise(path, i, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stub = cells(path)[i]["source"]
    after = cells(path)[i + 1] if i + 1 < len(cells(path)) else None
    solution = SOLUTION.search(after["source"]) if after and after["cell_type"] == "markdown" else None
    assert solution, "the cell after an exercise is its solution, folded away in <details>"

    student = {"__name__": "exercise"}
    exec(compile(stub, f"{path.name}, exercise", "exec"), student)
    checks = [n for n in student if n.startswith("check_")]
    assert checks, "an exercise has a function check_NAME"
    for check in checks:
        name = check.removeprefix("check_")
        assert f"# {check}({name})" == stub.strip().splitlines()[-1], f"the last line is `# {check}({name})`"
        assert student[name].__doc__, f"{name} has no specification"
        with pytest.raises(NotImplementedError):
            student[check](student[name])
        with pytest.raises(Exception):  # an answer that is simply wrong is noticed too
            student[check](lambda *args, **kwargs: None)

    solved = {"__name__": "solution"}
    exec(compile(stub, f"{path.name}, exercise", "exec"), solved)
    exec(compile(solution[1], f"{path.name}, solution", "exec"), solved)
    for check in checks:
        solved[check](solved[check.removeprefix("check_")])


@pytest.mark.parametrize("path, i", EXERCISES, ids=lambda v: getattr(v, "stem", v))
def test_every_refusal_has_words(path, i):
    asserts = [n for n in ast.walk(ast.parse(cells(path)[i]["source"])) if isinstance(n, ast.Assert)]
    assert asserts and not [ast.unparse(n) for n in asserts if n.msg is None], "an assert without a message helps nobody"


@pytest.mark.parametrize("path", LESSONS, ids=lambda v: v.stem)
def test_exercises_are_numbered_and_graded(path):
    "`**2 · Title.** ★★` in the cell before, and one kind among the tags; a lesson of the main path has kinds to choose from."
    places = [i for at, i in EXERCISES if at == path]
    kinds = [KINDS.intersection(tags(cells(path)[i])) for i in places]
    assert all(len(kind) == 1 for kind in kinds), f"one tag of {sorted(KINDS)} for each exercise"
    for number, i in enumerate(places, 1):
        heads = re.findall(r"^\*\*(\d+)(?: ·|\.)[^*]*\*\* (★{1,3}) \S", cells(path)[i - 1]["source"], re.M)
        assert heads and int(heads[-1][0]) >= number, f"exercise {number} needs its number in bold, then ★, ★★ or ★★★"
    assert path.parent.name != "nbs" or len(set().union(*kinds)) > 1, "exercises of two kinds or more"
