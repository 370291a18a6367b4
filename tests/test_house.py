"""The house rules that a reader would otherwise have to check by eye."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import narrows

SOURCE = Path(narrows.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# The staircase: a file, or all files of a folder, may import what stands before it. A newcomer finds its place here.
STAIRS = [
    *(
        "contract",
        "draws",
        "memory",
        "networks",
        "activations",
        "divergences",
        "likelihoods",
        "flows",
        "noise",
        "priors",
        "schedules",
        "posteriors",
        "models",
        "diffusion",
        "labels",
    ),
    *(
        "corruptions",
        "penalties",
        "objectives",
        "gradients",
        "pretraining",
        "spec",
        "pca",
        "recipes",
    ),  # the equation ends here
    *("baselines", "data", "defaults", "evaluate", "tasks", "store", "training", "pictures", "plots", "report"),
    *("export", "transfer", "verify", "references", "estimators", "detectors"),
    *("cli", "__main__"),
]
EQUATION = STAIRS[: STAIRS.index("recipes") + 1]


def step(path: Path) -> str:
    """The name under which a file stands in the staircase."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """narrows.data.rows for data/rows.py."""
    return ".".join(["narrows", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


every_file = pytest.mark.parametrize("path", FILES, ids=module)


def imported(tree: ast.Module) -> Iterator[str]:
    """Files and folders of the library that a module's top level imports."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "narrows":
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("narrows.")]


def where(pattern: str, files: list[Path] = FILES) -> list[str]:
    """Steps of the staircase in whose code the pattern occurs, one entry for each occurrence."""
    return [step(path) for path in files for _ in re.findall(pattern, path.read_text())]


def in_order(names: list[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions, each by the alphabet: as the linter sorts."""
    return sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))


def public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes at the top level that do not begin with an underscore."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


@every_file
def test_imports_form_a_staircase(path: Path) -> None:
    """Nothing imports what stands above it; a file that is not in `STAIRS` has no place yet."""
    if path == SOURCE / "__init__.py":  # looks its names up when they are used
        assert not list(imported(TREES[path]))
        return
    assert step(path) in STAIRS, f"give {step(path)} its place in STAIRS"
    for name in imported(TREES[path]):
        below = STAIRS.index(name) < STAIRS.index(step(path))
        assert below or name == step(path), f"{step(path)} imports {name}, which stands above it"


def test_public_names_are_sorted_and_there() -> None:
    """`narrows.__all__`, which is looked up lazily."""
    assert narrows.__all__ == in_order(narrows.__all__)
    assert set(narrows.__all__) <= set(dir(narrows))
    for name in narrows.__all__:
        assert getattr(narrows, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'VEA'"):
        narrows.VEA  # noqa: B018


@every_file
def test_every_module_says_what_is_public(path: Path) -> None:
    """A sorted `__all__` of names that are there, and a docstring."""
    assert ast.get_docstring(TREES[path])
    if path.name != "__main__.py":
        found = importlib.import_module(module(path))
        assert list(found.__all__) == in_order(found.__all__)
        assert all(hasattr(found, name) for name in found.__all__)


@every_file
def test_what_is_public_is_explained(path: Path) -> None:
    """Functions and classes have docstrings."""
    assert not [node.name for node in public(TREES[path]) if not ast.get_docstring(node)]


def test_the_equation_is_computed_once() -> None:
    """One ELBO, one KL, and one file that takes the mean over a batch."""
    equation = [path for path in FILES if step(path) in EQUATION]
    assert where(r"def elbo\b") == ["objectives"]
    assert set(where(r"kl_divergence\(")) == {"divergences"}
    assert set(where(r"\.mean\(\)", equation)) == {"objectives"}


def test_recipes_are_settings() -> None:
    """At most a dozen lines each after the docstring."""
    made = [
        node
        for path in FILES
        if step(path) == "recipes"
        for node in public(TREES[path])
        if any(isinstance(d, ast.Call) and ast.unparse(d.func) == "recipe" for d in node.decorator_list)
    ]
    assert made
    for node in made:
        assert node.end_lineno - node.body[0].end_lineno <= 12, node.name


@pytest.mark.parametrize("path", [path for path in FILES if step(path) != "cli"], ids=module)
def test_nobody_has_to_remember_nine_arguments(path: Path) -> None:
    """At most 8 besides self; **kwargs may hand on. A command's flags are listed by --help, nobody remembers them.

    The equation has 9 (docs/decisions/008).
    """
    most = 9 if step(path) == "objectives" else 8
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= most, node.name


@every_file
def test_nothing_is_asserted_or_unpickled(path: Path) -> None:
    """Users get errors that `python -O` keeps, and a file is never code."""
    for node in ast.walk(TREES[path]):
        assert not isinstance(node, ast.Assert)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {"pickle", "cloudpickle", "dill", "joblib"} & {name.split(".")[0] for name in names}
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("torch.load", "exec", "eval")
            for keyword in node.keywords:
                assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"


IMPORT_ALL = """
import importlib, logging, os, sys
import narrows
print("torch" in sys.modules, "numpy" in sys.modules)  # `import narrows` costs nothing
import torch, sklearn  # what they do to the process is theirs
def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(), torch.distributions.Distribution._validate_args,
            list(logging.root.handlers), logging.root.level, sorted(os.environ), os.listdir())
before, generator = state(), torch.get_rng_state()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(state() == before, torch.equal(torch.get_rng_state(), generator))
"""


def test_importing_does_nothing_else(tmp_path: Path) -> None:
    """No output, no files, no handlers, no settings or draws of torch; and `import narrows` alone imports no torch."""
    modules = [module(path) for path in FILES if path.name != "__main__.py"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.stderr, done.stdout) == ("", "False False\nTrue True\n")
