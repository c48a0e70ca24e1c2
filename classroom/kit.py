"""Make the notebooks of a class from the lessons: for students without solutions, for the teacher with hidden checks.

    python classroom/kit.py [01_game …] [--seed 17] [--folder class]
"""
import argparse
import ast
import difflib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
from hidden import hidden_cell

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>\s*```python\n(.*?)```\s*</details>", re.S)
DETAILS = re.compile(r"<details>.*?</details>\s*", re.S)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS\n?", re.S)
NOTE = (
    "*This copy is for handing in. Write each answer into its cell, in place of `raise NotImplementedError`, with the "
    "imports and helpers that it needs. Then run the locked cell below it: it says what is wrong, or that the answer "
    "is right. A locked cell that was changed or removed costs the exercise its points. Before you hand in, restart "
    "the kernel and run everything once.*"
)


class Exercise(NamedTuple):
    "One exercise of a lesson, taken apart."
    name: str      # of the function that the student writes
    answer: str    # code with the stub, for the student to fill in
    imports: str   # the exercise's import statements
    check: str     # code of check_NAME and what belongs to it
    solution: str  # code of the solution


def lessons():
    "Name → path of every notebook in nbs."
    paths = [p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return {p.stem: p for p in sorted(paths, key=lambda p: p.name)}


def take_apart(source, after):
    "The exercise in a code cell's `source`; `after` is the text of the next cell, which holds the solution."
    tree = ast.parse(source)
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    checks = [n.removeprefix("check_") for n in functions if n.startswith("check_")]
    solution = SOLUTION.search(after)
    if len(checks) != 1 or checks[0] not in functions or not solution:
        raise ValueError(f"an exercise has one NAME with one check_NAME and a folded solution below it, not {checks}")
    name, lines = checks[0], source.splitlines()
    end = functions[name].end_lineno
    imports = [ast.get_source_segment(source, n) for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    check = "\n".join(lines[end:]).strip().removesuffix(f"# check_{name}({name})").rstrip()
    return Exercise(name, "\n".join(lines[:end]), "\n".join(imports), check, solution[1])


def exercises(notebook):
    "Place of the cell → exercise, in order."
    cells = [*notebook.cells, nbformat.v4.new_markdown_cell()]
    places = [i for i, c in enumerate(cells) if "exercise" in c.metadata.get("tags", [])]
    return {i: take_apart(cells[i].source, cells[i + 1].source) for i in places}


def graded(kind, name, source, points=0):
    "A code cell as nbgrader wants it: kind is answer, check or hidden; all but answers are locked."
    cell = nbformat.v4.new_code_cell(source, id=f"{kind}-{name}".replace("_", "-"))
    locked = kind != "answer"
    cell.metadata["nbgrader"] = {
        "grade_id": f"{kind}_{name}",
        "grade": locked,
        "solution": not locked,
        "locked": locked,
        "task": False,
        "cell_type": "code",
        "schema_version": 3,
    }
    if locked:
        cell.metadata["nbgrader"]["points"] = points
        cell.metadata.update(editable=False, deletable=False)
    return cell


def cells_of(lesson, exercise, seed):
    "The answer's cell, the check's, and where there is one the hidden check's. Two points in all."
    name, hidden = exercise.name, hidden_cell(lesson, exercise, seed)
    call = f'check_{name}({name})\nprint("{name}: right")'
    check = "\n\n".join(part for part in (exercise.imports, exercise.check, call) if part)
    found = [graded("answer", name, exercise.answer), graded("check", name, check, 1 if hidden else 2)]
    return found + ([graded("hidden", name, hidden, 1)] if hidden else [])


def class_notebook(path, seed):
    "The teacher's notebook: stubs, locked checks and hidden checks, no solutions. ValueError without exercises."
    notebook = nbformat.read(path, as_version=4)
    found = exercises(notebook)
    if not found:
        raise ValueError(f"{path.stem} has no exercises, so there is nothing to hand out.")
    cells = []
    for i, cell in enumerate(notebook.cells):
        if i in found:
            cells += cells_of(path.stem, found[i], seed)
            continue
        if i > min(found):
            cell.source = DETAILS.sub("", cell.source).strip()
        if cell.source:
            cells.append(cell)
    cells.insert(1, nbformat.v4.new_markdown_cell(NOTE, id="handing-in"))
    notebook.cells = cells
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def student_notebook(notebook):
    "The same for students: the hidden checks are cut out, their cells stay."
    copy = nbformat.from_dict(notebook)
    for cell in copy.cells:
        cell.source = HIDDEN.sub("", cell.source).rstrip()
    return copy


def chosen(names):
    "Paths of the lessons named, of all with exercises if none is. ValueError for a name that no lesson has."
    known = lessons()
    if not names:
        return [p for p in known.values() if exercises(nbformat.read(p, as_version=4))]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.3) or list(known)[:1]
            raise ValueError(f"There is no lesson {name}; names look like {near[0]}.")
    return [known[name] for name in names]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", nargs="*", help="names such as 01_game; all with exercises if none is given")
    parser.add_argument("--seed", default="0", help="draws the inputs of the hidden checks; keep it to yourself")
    parser.add_argument("--folder", type=Path, default=Path("class"), help="where everything of the class is kept")
    args = parser.parse_args(argv)
    try:
        made = {p.stem: class_notebook(p, args.seed) for p in chosen([n.removesuffix(".ipynb") for n in args.lessons])}
    except ValueError as e:
        print(e, file=sys.stderr)
        return 2
    for name, notebook in made.items():
        for part, content in ("teacher", notebook), ("students", student_notebook(notebook)):
            path = args.folder / part / name / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(content, path)
        ids = [c.metadata["nbgrader"]["grade_id"] for c in notebook.cells if "nbgrader" in c.metadata]
        hidden = [n.removeprefix("hidden_") for n in ids if n.startswith("hidden_")]
        answers = sum(n.startswith("answer_") for n in ids)
        print(f"{name}: {answers} exercises, hidden checks for {', '.join(hidden) or 'none'}")
    print(f"Hand out {args.folder}/students; keep {args.folder}/teacher.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
