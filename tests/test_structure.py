"""The order of imports and the limits on modules and functions, read from the source."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [path.stem for path in ROOT.glob("*.py")]
LONGEST_FUNCTION = 70
MOST_PARAMETERS = 12
MOST_GROUND_FLOOR_MODULES = 14


@cache
def sources():
    """Return the syntax trees of the scripts and of the modules of utils and models, by dotted name."""
    paths = [*ROOT.glob("*.py"), *(ROOT / "utils").rglob("*.py"), *(ROOT / "models").rglob("*.py")]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {
        name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8"))
        for path, name in names.items()
    }


@cache
def imports():
    """Return the modules of the project that each module imports, at its top or inside a function."""
    modules = sources()
    imported = {}
    for name, tree in modules.items():
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                targets.update(f"{node.module}.{alias.name}" for alias in node.names)
                targets.add(node.module)
        imported[name] = targets & modules.keys()
    return imported


def graph(node_of):
    """Return the imports between nodes, each a module or a group of modules."""
    edges = {}
    for name, targets in imports().items():
        if name not in ("utils", "models"):
            edges.setdefault(node_of(name), set()).update(
                node_of(target) for target in targets if target not in ("utils", "models")
            )
    return {node: targets - {node} for node, targets in edges.items()}


def second_level(name):
    """Return the name of a script, of a module directly in utils or models, or of the folder there."""
    return ".".join(name.split(".")[:2])


def folder_of_models(name):
    """Return the folder of a module of models, or else `second_level`."""
    if name.split(".")[0] != "models":
        return second_level(name)
    return "models.poolings" if name.startswith("models.poolings") else "models"


@pytest.mark.parametrize("node_of", [second_level, folder_of_models])
def test_imports_have_no_cycle(node_of):
    edges = graph(node_of)
    assert {"utils.errors", "utils.program", "models.poolings", *SCRIPTS} <= edges.keys()
    assert "utils.errors" in edges["utils.program"]
    list(TopologicalSorter(edges).static_order())  # raises CycleError


def test_imports_in_packages_and_functions_are_recorded():
    assert "models.backbones.backbone" in imports()["models.retrieval_network"]
    assert "utils.program.interrupts" in imports()["utils.program.run_command"]  # from a package
    assert "utils.program.run_command" in imports()["utils.program.start"]  # inside a function


def test_imports_go_from_scripts_to_utils_to_models():
    for name, targets in imports().items():
        layers = {target.split(".")[0] for target in targets}
        if name.startswith("utils"):
            assert layers <= {"utils", "models"}, name
        elif name.startswith("models"):
            assert layers <= {"models"}, name
        else:
            assert layers <= {"utils", "models"}, name  # no script imports another


def test_few_modules_lie_on_the_ground_floor_of_utils():
    modules = [path.name for path in (ROOT / "utils").glob("*.py") if path.name != "__init__.py"]
    assert 0 < len(modules) <= MOST_GROUND_FLOOR_MODULES


def length(function):
    """Return the number of lines of a function without its decorators and its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def parameters(function):
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def test_the_measures_of_a_function_by_hand():
    text = 'def f(a, /, b, *, c):\n    """Two\n    lines."""\n    return a\n'
    (function,) = ast.parse(text).body
    assert (length(function), parameters(function)) == (2, 3)


def test_functions_are_short_with_few_parameters_and_spell_them_out():
    for name, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert length(node) <= LONGEST_FUNCTION, f"{name}.{node.name}"
                assert parameters(node) <= MOST_PARAMETERS, f"{name}.{node.name}"
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (is_call and node.func.id == "locals"), f"{name}, line {node.lineno}"
