"The classroom kit: students' notebooks without solutions, hidden checks that tell right from wrong, grading by nbgrader."
import ast
import importlib.util
import subprocess
import sys

import nbformat
import pytest

from notebooks import ROOT

sys.path.insert(0, str(ROOT / "classroom"))
import hidden  # noqa: E402
import kit  # noqa: E402

PATHS = kit.chosen([])
LESSON = "29_processes"  # the one that is graded here: it runs in seconds


def taken_apart(path):
    return list(kit.exercises(nbformat.read(path, as_version=4)).values())


HIDDEN = [(p.stem, e) for p in PATHS for e in taken_apart(p) if f"{p.stem}/{e.name}" in hidden.INPUTS]


def by_id(notebook):
    return {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_students_get_every_exercise_and_no_solution(path):
    teacher = kit.class_notebook(path, "1")
    student = kit.student_notebook(teacher)
    nbformat.validate(student)
    cells, text = by_id(student), "\n".join(c.source for c in student.cells)
    assert "Solution</summary>" not in text and "HIDDEN TESTS" not in text
    for e in taken_apart(path):
        known = {line.strip() for line in (e.answer + e.imports + e.check).splitlines()}
        own = {line.strip() for line in e.solution.splitlines()} - known
        own = {line for line in own if len(line) > 12 and not line.startswith(("def ", '"'))}
        assert own and not [line for line in own if line in text], "a line of the solution is left"
        answer, check = cells[f"answer_{e.name}"], cells[f"check_{e.name}"]
        assert 'raise NotImplementedError("your turn")' in answer.source and "check_" not in answer.source
        assert answer.metadata.get("editable", True) and not answer.metadata.nbgrader.locked
        assert check.source.splitlines()[-2] == f"check_{e.name}({e.name})", "the check is called"
        points = [c.metadata.nbgrader.points for n, c in cells.items() if n in (f"check_{e.name}", f"hidden_{e.name}")]
        assert sum(points) == 2
    for name, cell in cells.items():
        if not name.startswith("answer_"):
            assert cell.metadata.nbgrader.locked and not cell.metadata.editable and not cell.metadata.deletable
            assert cell.metadata.nbgrader.grade and cell.metadata.nbgrader.grade_id in by_id(teacher)
    lesson = nbformat.read(path, as_version=4)
    plain = [c.source for c in lesson.cells if c.cell_type == "code" and "exercise" not in c.metadata.get("tags", [])]
    assert plain == [c.source for c in student.cells if c.cell_type == "code" and "nbgrader" not in c.metadata]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_a_locked_check_runs_by_itself(path):
    "It brings its imports along, since the student may have changed those of the answer."
    cells = by_id(kit.student_notebook(kit.class_notebook(path, "1")))
    for e in taken_apart(path):
        there = {"__name__": "class", e.name: lambda *args, **kwargs: None}
        with pytest.raises(Exception) as caught:
            exec(cells[f"check_{e.name}"].source, there)
        assert not isinstance(caught.value, NameError), caught.value


def run_hidden(lesson, e, answer, seed="1"):
    exec(hidden.hidden_cell(lesson, e, seed), {e.name: answer})


@pytest.mark.parametrize("lesson, e", HIDDEN, ids=lambda v: getattr(v, "name", v))
def test_hidden_checks_tell_right_from_wrong(lesson, e):
    there = {}
    exec(e.imports + "\n" + e.answer + "\n" + e.solution, there)
    solution, seen = there[e.name], []

    def noting(*args):
        seen.append(hidden.outcome(solution, args))
        return solution(*args)

    for seed in ("1", 'a "quoted" one'):
        run_hidden(lesson, e, noting, seed)
    assert not hidden.same(seen[:8], seen[8:]), "another seed draws other inputs"
    constant = [lambda *args, one=one: one for one in (None, *seen)]
    stub = {}
    exec(e.imports + "\n" + e.answer, stub)
    for wrong in [*constant, lambda *args: (solution(*args), 0), lambda *args: args[0]]:
        with pytest.raises((AssertionError, TypeError, ValueError, RuntimeError)):
            run_hidden(lesson, e, wrong)
    with pytest.raises(NotImplementedError):
        run_hidden(lesson, e, stub[e.name])


def test_hidden_checks_are_of_exercises_that_exist():
    assert {f"{lesson}/{e.name}" for lesson, e in HIDDEN} == set(hidden.INPUTS)


def test_an_answer_learned_by_heart_passes_the_check_alone():
    "What hidden checks are for."
    e = next(e for lesson, e in HIDDEN if e.name == "moved" and lesson == "28_devices")
    there = {}
    exec(e.answer + "\n\n" + e.check, there)
    there["check_moved"](lambda n, shape: (12_288_000, 49_152_000))
    with pytest.raises(AssertionError, match="expected is"):
        run_hidden("28_devices", e, lambda n, shape: (12_288_000, 49_152_000))


@pytest.mark.parametrize("name, says", [("museum", "no exercises"), ("01_gam", "names look like 01_game"), ("../x", "no lesson")])
def test_a_lesson_that_cannot_be_handed_out(name, says, tmp_path):
    run = [sys.executable, ROOT / "classroom/kit.py", name, "--folder", tmp_path]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_made_twice_is_the_same(tmp_path):
    for folder in "ab":
        assert kit.main([LESSON, "--seed", "3", "--folder", str(tmp_path / folder)]) == 0
    a, b = ({p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.ipynb")} for f in "ab")
    assert a == b and len(a) == 2
