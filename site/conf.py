"How Sphinx builds the site: `make site` writes its pages into _site/source and calls it there."
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "nbs")]
from _sync import is_published, place, settings  # noqa: E402

s = settings()
project, author, version = "DCGAN, a course you can run", s["author"], s["version"]
release, copyright, language = version, s["copyright"], "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton", "docments"]
exclude_patterns = ["images/README.md"]

# Lessons: the outputs are the stored ones.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables in outputs
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]  # a heading may jump a level; widgets have a still picture

myst_heading_slug_func = "pages.jupyter_slug"

# The package's pages.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# The look. Nothing comes from another host.
html_theme = "sphinx_book_theme"
html_title = "DCGAN, a course you can run"
html_baseurl = f"{s['doc_host']}{s['doc_baseurl']}/" if is_published() else ""
html_static_path = ["static"]
html_favicon = "static/icon.svg"
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}  # light or dark, as the visitor's system
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],  # the side bar holds the search already
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    **({"repository_url": place()[0], "use_repository_button": True} if is_published() else {}),
}
copybutton_exclude = ".linenos, .gp, .go"

# MathJax from a package, since Sphinx would fetch it from another host on every visit.
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {
    "loader": {"load": ["[tex]/textmacros"]},  # for an underscore in \text{…}
    "tex": {"packages": {"[+]": ["textmacros"]}},
    "options": {"enableMenu": False},          # its menu loads what is not copied
}


def copy_mathjax(app, error):
    "Copy the script, its fonts and the parts of TeX that it loads when needed."
    from sphinx.util.fileutil import copy_asset
    if error is None and app.builder.format == "html":
        for part in ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions"):
            target = Path(app.outdir, "_static/mathjax", part)
            copy_asset(MATHJAX / part, target if (MATHJAX / part).is_dir() else target.parent, force=True)


def setup(app):
    app.connect("build-finished", copy_mathjax)
