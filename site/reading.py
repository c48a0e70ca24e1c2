"""What is said around a lesson: minutes to read and to run, what it shows, what one can do afterwards, three questions.

    python site/reading.py                     a table of all notebooks, and what is missing
    python site/reading.py measure [NAME …]    run notebooks, one thread each, and write their seconds to site/minutes.csv
"""
import csv
import html
import os
import platform
import re
import resource
import sys
import tempfile
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MEASURED = HERE / "minutes.csv"                          # notebook, seconds, threads, machine, load before, date
PARTS = [(0, "A GAN in one sitting"), (3, "The networks"), (6, "Training"), (12, "Results")]  # first lesson, caption
WORDS, LINES = 200, 26                                   # that a reader takes in a minute
NEXT = re.compile(r"(?:^|\n\n)(Next: \[[^\n]+)\s*$")     # the link to the next lesson, in the last cell
QUESTION = re.compile(r"^\*\*(.+)\*\*\n((?:.+\n)+)", re.M)  # a question and the lines below it


class Entry(NamedTuple):
    "What site/questions.md says of a notebook."
    shows: str           # in half a sentence, for the index
    able: str            # what its reader can do afterwards
    questions: tuple     # pairs (question, answer)


@cache
def entries():
    "Every notebook's entry by its name. ValueError for one that can't be read."
    text = re.sub(r"<!--.*?-->", "", (HERE / "questions.md").read_text(encoding="utf-8"), flags=re.S)
    found = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        name, body = part.split("\n", 1)
        lines = dict(re.findall(r"^(Shows|Able): (.+)$", body, re.M))
        questions = tuple((q, a.strip()) for q, a in QUESTION.findall(f"{body}\n"))
        if "Shows" not in lines or len(questions) not in (0, 3):
            raise ValueError(f"site/questions.md: {name} needs a line `Shows: …`, and no question or three of them.")
        found[name.strip()] = Entry(lines["Shows"], lines.get("Able", ""), questions)
    return found


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def minutes_to_read(path):
    "An estimate from words and lines of code, without exercises, solutions and the install cell; five minutes at least, in fives."
    words = lines = 0
    for cell in cells_of(path):
        if cell.cell_type == "markdown" and "<details>" not in cell.source:
            words += len(cell.source.split())
        elif "google.colab" in cell.source:
            continue  # the install cell
        elif cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
    return max(5, 5 * round((words / WORDS + lines / LINES) / 5))


@cache
def measured():
    "The rows of site/minutes.csv by notebook."
    if not MEASURED.exists():
        return {}
    with open(MEASURED, newline="", encoding="utf-8") as file:
        return {row["notebook"]: row for row in csv.DictReader(file)}


def seconds_to_run(path):
    "As it was measured; None where it was not."
    row = measured().get(path.stem)
    return float(row["seconds"]) if row else None


def times(path):
    "10 min, 12 s; a dash where nothing was measured."
    seconds = seconds_to_run(path)
    return f"{minutes_to_read(path)}\N{NO-BREAK SPACE}min", "–" if seconds is None else f"{max(1, round(seconds))}\N{NO-BREAK SPACE}s"


# On the site

def before(path):
    "What stands below a page's title."
    read, run = times(path)
    runs = "" if run == "–" else f", {run} to run on one processor core"
    entry = entries().get(path.stem)
    able = f" **Afterwards you can** {entry.able}." if entry and entry.able else ""
    return f"\n\n{read} to read{runs}.{able}"


def after(path):
    "The three questions at a page's end, answers folded; nothing where there are none."
    entry = entries().get(path.stem)
    if not entry or not entry.questions:
        return ""
    folds = [f"<details><summary>{html.escape(q, quote=False)}</summary>\n\n{a}\n</details>" for q, a in entry.questions]
    return "\n\n".join(["## Three questions", *folds])


def framed(notebook, path):
    "The notebook with what stands before and after it; a link to the next lesson stays last."
    if notebook.cells and notebook.cells[0].cell_type == "markdown":
        notebook.cells[0].source += before(path)
    if text := after(path):
        last, link = notebook.cells[-1], NEXT.search(notebook.cells[-1].source)
        questions = [nbformat.v4.new_markdown_cell(text, id="questions")]
        if link and last.cell_type == "markdown":
            last.source = last.source[: link.start()]
            questions.append(nbformat.v4.new_markdown_cell(link[1], id="next"))
        notebook.cells = [c for c in notebook.cells if c.source or c is not last] + questions
    return notebook


# The index

def modules_of(cells):
    "The modules that a notebook writes: that of `#| default_exp`, then those of `#| export NAME`."
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    return list(dict.fromkeys(re.findall(r"^#\|\s*(?:default_exp|export) ([\w.]+)$", code, re.M)))


def row(path, first=None):
    "A lesson's row in the index; `first` is the part of the course, for tables that begin with it."
    cells = cells_of(path)
    entry, (read, run) = entries().get(path.stem), times(path)
    line = re.search(r"^\*([^*].*[^*])\*$", cells[0].source, re.M)
    shows = entry.shows if entry else line[1].rstrip(".")
    title = cells[0].source.splitlines()[0].lstrip("# ")
    columns = [f"[{title}]({path.relative_to(ROOT / 'nbs').as_posix()})", shows, read, run,
               ", ".join(f"`dcgan.{module}`" for module in modules_of(cells)) or "–"]
    return "| " + " | ".join([first, *columns] if first is not None else columns) + " |"


def main_path():
    "The lessons by part of the course: pairs (caption, paths)."
    paths = sorted(ROOT.glob("nbs/[0-9][0-9]_*.ipynb"))
    made = {caption: [] for _, caption in PARTS}
    for path in paths:
        made[[caption for first, caption in PARTS if first <= int(path.name[:2])][-1]].append(path)
    return [(caption, paths) for caption, paths in made.items() if paths]


def table(parts):
    "A table of lessons; `parts` are pairs (part of the course, paths), one pair with None for a table without parts."
    named = parts[0][0] is not None
    head = ["lesson", "what it shows", "read", "run", "module"]
    out = [["| |", "|"][not named] + " " + " | ".join(head) + " |", "|---" * (len(head) + named) + "|"]
    for name, paths in parts:
        firsts = [f"**{name}**", *[""] * (len(paths) - 1)] if named else [None] * len(paths)
        out += [row(path, first) for path, first in zip(paths, firsts)]
    return "\n".join(out)


def when():
    "Where and when the seconds were measured, in half a sentence."
    rows = list(measured().values())
    dates = sorted({r["date"] for r in rows})
    machines = sorted({r["machine"] for r in rows})
    loads = sorted(float(r["load"]) for r in rows if r.get("load"))
    noted = "" if len(loads) == len(rows) else " where it was noted"
    busy = f", under a load of up to {loads[-1]:.1f}{noted}" if loads and loads[-1] >= 1 else ""
    return f"on {' and '.join(machines)}{busy}, {' to '.join(sorted({dates[0], dates[-1]}))}" if rows else "nowhere yet"


def filled(text):
    "The index's cell with its tables anew, each below a comment that names it and up to the next empty line."
    hood = sorted(ROOT.glob("nbs/under_the_hood/[0-9][0-9]_*.ipynb"), key=lambda p: p.name)
    beside = [ROOT / f"nbs/{name}.ipynb" for name in ("museum", "faq", "capstone")]
    tables = {"main path": table([*main_path(), ("Beside the lessons", beside)]), "under the hood": table([(None, hood)])}
    minutes = sum(minutes_to_read(path) for _, paths in main_path() for path in paths)
    tables["times"] = (f"Minutes to read are an estimate ({WORDS} words or {LINES} lines of code a minute, without the "
                       f"exercises): {minutes / 60:.0f} hours for the main path. Seconds to run are those of one processor "
                       f"core, measured {when()} (`make minutes`); a dash: not measured. Below, "
                       "each arc leads from a lesson to one that imports from it.")
    for name, made in tables.items():
        text = re.sub(rf"(<!-- {name} -->\n)(?:.+\n?)+", lambda m, made=made: m[1] + made + "\n", text)
    return text


# Measuring

def processor():
    "Its name, as /proc has it."
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def run(path):
    "Processor seconds that a kernel takes for all cells of a notebook, imports and start included."
    from nbclient import NotebookClient
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(nbformat.read(path, as_version=4), timeout=900, kernel_name="python3",
                       resources={"metadata": {"path": folder}}).execute()
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def measure(paths):
    "Run them, and rewrite their rows."
    for path in paths:
        load, seconds = os.getloadavg()[0], run(path)
        measured.cache_clear()  # another process may have written meanwhile
        rows = dict(measured())
        rows[path.stem] = {"notebook": path.stem, "seconds": f"{seconds:.1f}", "threads": 1, "machine": processor(),
                           "load": f"{load:.1f}", "date": date.today().isoformat()}
        print(f"{path.stem:20} {seconds:6.1f} s", flush=True)
        with open(MEASURED, "w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[path.stem]), lineterminator="\n")
            out.writeheader()
            out.writerows(rows[name] for name in sorted(rows))


def main(args):
    found = sorted((p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts and p.stem != "index"),
                   key=lambda p: p.name)
    names = args[1:]
    if args and args[0] != "measure" or set(names) - {p.stem for p in found}:
        sys.exit(__doc__)
    if args:
        return measure([p for p in found if not names or p.stem in names])
    for path in found:
        entry = entries().get(path.stem)
        missing = [] if entry and entry.questions else ["no questions"] if entry else ["no entry in site/questions.md"]
        missing += ["not measured"] if seconds_to_run(path) is None else []
        print(f"{path.stem:20} {' '.join(f'{t:>7}' for t in times(path))}   {', '.join(missing)}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
