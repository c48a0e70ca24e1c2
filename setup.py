"Set-up of the package: everything that may change stands in settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read_string((here / "settings.ini").read_text(encoding="utf-8"))
s = config["DEFAULT"]
readme = here / "README.md"
addresses = {
    "Documentation": s["doc_host"] + s["doc_baseurl"],
    "Source": s["git_url"],
    "Issues": s["git_url"] + "/issues",
    "Changelog": f"{s['git_url']}/blob/{s['branch']}/CHANGELOG.md",
}

setup(
    name=s["lib_name"],
    version=s["version"],
    description=s["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else s["description"],
    long_description_content_type="text/markdown",
    author=s["author"],
    author_email=s["author_email"],
    url=s["git_url"],
    project_urls=addresses if s.getboolean("published") else {},
    keywords=s["keywords"].split(),
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=f">={s['min_python']}",
    packages=find_packages(include=["dcgan*"]),
    package_data={"dcgan": ["py.typed", "assets/*", "assets/**/*"]},
    install_requires=s["requirements"].split(),
    extras_require={name: s[f"{name}_requirements"].split() for name in ("dev", "docs", "widgets", "track", "classroom", "onnx")},
    entry_points={"console_scripts": s["console_scripts"].split("\n")},
    zip_safe=False,
)
