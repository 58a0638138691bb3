"""What a newcomer meets: the names that packages list are few, exist, and say what they are."""

import ast
import importlib
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("tomo", "files", "recon", "pipeline", "laplace", "gp", "linops", "design", "quantities")
PACKAGES = ("ctuq", *(f"ctuq.{part}" for part in PARTS))


def public():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield package, name, getattr(module, name)


def test_public_names_can_be_learned():
    named = [value for _, _, value in public() if not inspect.ismodule(value) and not isinstance(value, str)]
    assert len({id(value) for value in named}) < 150


def test_public_functions_and_classes_say_what_they_do():
    spoken = [(p, n, value) for p, n, value in public() if inspect.isclass(value) or inspect.isroutine(value)]
    assert len(spoken) > 100
    assert [f"{package}.{name}" for package, name, value in spoken if not inspect.getdoc(value)] == []


def test_public_functions_and_classes_say_what_they_take():
    """A section of its own for whatever takes more than one parameter; a kernel's may be that of its family."""
    silent = []
    for package, name, value in public():
        kinds = value.__mro__ if inspect.isclass(value) else (value,)
        if Exception in kinds or (not inspect.isroutine(value) and not inspect.isclass(value)):
            continue
        said = [inspect.cleandoc(kind.__doc__ or "") for kind in kinds]
        told = any(section in text for text in said for section in ("Parameters\n----", "Attributes\n----"))
        if not told and len(inspect.signature(value).parameters) > 1:
            silent.append(f"{package}.{name}")
    assert silent == []


def test_one_name_is_one_thing_wherever_it_is_public():
    found: dict[str, set[int]] = {}
    for _, name, value in public():
        found.setdefault(name, set()).add(id(value))
    assert {name for name, values in found.items() if len(values) > 1} == set()


def test_one_name_is_one_class_all_over_the_house():
    """But for what is typed: a command is called by its class's name, and two may be called alike."""
    homes: dict[str, list[str]] = {}
    for module, tree in parsed("ctuq").items():
        kinds = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for name in kinds if not module.endswith(".options") else ():
            homes.setdefault(name, []).append(module)
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert len(homes) > 200
    assert twice == {}


def parsed(*folders):
    """The modules of some folders by their dotted names."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8")) for path in paths}


def taken_by(tree):
    """Dotted names that a module imports, those that it takes from a module it imports, and pairs (module, name) of texts."""
    nodes = list(ast.walk(tree))
    imports = [(node.module, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    known = {alias.asname or alias.name: f"{module}.{alias.name}" for module, alias in imports}
    inner = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    pairs = [[getattr(part, "value", None) for part in node.elts] for node in nodes if isinstance(node, ast.Tuple)]
    late = {".".join(pair) for pair in pairs if len(pair) == 2 and all(isinstance(part, str) for part in pair)}
    return {*known.values(), *late, *(f"{known[node.value.id]}.{node.attr}" for node in inner if node.value.id in known)}


def made_by(tree):
    """Names that a module has once it is imported; of a package also what it lists."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.asname or node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    return names | {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_what_scripts_and_tests_import_from_the_house_is_there():
    """No type check reads them, and of an experiment that takes hours no test runs all."""
    trees = {module.removesuffix(".__init__"): tree for module, tree in parsed("ctuq", "experiments", "tests").items()}
    homes = {module: made_by(tree) for module, tree in trees.items() if not module.startswith("tests")}
    lost, seen = [], 0
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("ctuq", "experiments"):
                known, seen = homes.get(node.module, set()), seen + 1
                names = [alias.name for alias in node.names]
                lost += [f"{module}: {node.module}.{n}" for n in names if n not in known and f"{node.module}.{n}" not in homes]
    assert seen > 1000
    assert lost == []


def shown_by(tree):
    """Names that stand in the signatures and among the bases of what is public in a module."""
    parts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            parts += node.bases
        elif isinstance(node, ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            parts += [node.returns, *(argument.annotation for argument in arguments)]
    return {name for part in parts if part is not None for name in re.findall(r"\w+", ast.unparse(part))}


def test_what_only_its_own_module_uses_begins_with_an_underscore():
    trees = parsed("ctuq", "tests", "experiments", "docs")
    templates = {word for path in (ROOT / "ctuq").rglob("*.jinja") for word in re.findall(r"\w+", path.read_text("utf-8"))}
    taken = {name for tree in trees.values() for name in taken_by(tree)}
    alone = []
    for module, tree in trees.items():
        kinds = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        names = {node.name for node in kinds if not node.name.startswith("_")} if module.startswith("ctuq.") else set()
        alone += [f"{module}.{name}" for name in names - shown_by(tree) - templates if f"{module}.{name}" not in taken]
    assert len(taken) > 1000
    assert alone == []
