"Links to the glossary: on each page of a lesson, each of the glossary's words where it first stands."
import re
from functools import cache
from pathlib import Path

GLOSSARY = Path(__file__).resolve().parent / "glossary.md"
# Words that mean something else before the lesson that explains them: a probability density, the floor of a number.
LATER = {"coverage", "density", "embedding", "engine", "features", "floor", "judge", "kernel", "truncation"}
OTHERWISE = {("15_latent", "stride"), ("34_onnx", "kernel"), ("21_drawn", "generator"), ("21_drawn", "judge")}  # something else there
OTHERS = "random ", "global ", "Python "  # generators of numbers, and functions that yield
FORMS = {"batch": ["batches"], "history": ["histories"], "EMA": ["moving average", "exponential moving average"],
         "Fréchet distance": ["digit-FID"], "latent distribution": ["distribution of its noise"]}  # beside those that end in s
# Where no word becomes a link: code, equations, links, HTML, folded text, headings, tables.
APART = re.compile(
    r"```.*?```|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$|\\begin\{.*?\\end\{[^}]*\}|<details>.*?</details>|<[^>]+>"
    r"|!?\[[^\]]*\]\([^)]*\)|^#+ [^\n]*$|^\s*\|[^\n]*$",
    re.S | re.M,
)


@cache
def terms():
    "Every word of the glossary with the lessons that explain it: {word: [names such as 04_networks]}."
    text = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}\n")[1]
    entries = re.findall(r"^(\S.*)\n  (.+)$", text, re.M)
    return {word: re.findall(r"(\w+)\.ipynb", said) for word, said in entries}


@cache
def pattern():
    "Finds the words, also in other forms and with a capital letter, longer ones first; and each form's word."
    forms = {form: word for word in terms() for form in (word, f"{word}s", *FORMS.get(word, []))}
    either = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
    others = "".join(f"(?<!{word})" for word in OTHERS)
    found = re.compile(rf"(?<![\w{{-]){others}(?:{'|'.join(either)})(?![\w-])", re.I)
    return found, {form.lower(): word for form, word in forms.items()}


def wanted(page):
    "The words to link on a page: without those that mean something else there, or so early."
    number = int(page[:2]) if re.match(r"\d\d_", page) else 100
    return {word for word, lessons in terms().items()
            if (page, word) not in OTHERWISE and not (word in LATER and number < int(lessons[0][:2]))}


def linked(text, left):
    "Markdown in which the first of each word of `left` is a link; the words that were found leave `left`."
    words, by_form = pattern()

    def link(match):
        word = by_form[match.group().lower()]
        if word not in left:
            return match.group()
        left.discard(word)
        return f"{{term}}`{match.group()} <{word}>`"

    pieces, end = [], 0
    for apart in [*APART.finditer(text), None]:
        start = apart.start() if apart else len(text)
        pieces.append(words.sub(link, text[end:start]))
        if apart:
            pieces.append(apart.group())
            end = apart.end()
    return "".join(pieces)


def with_terms(cells, page):
    "The cells of a lesson with their links to the glossary; its title and summary stay without."
    left = wanted(page)
    for cell in cells[1:]:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, left)
    return cells
