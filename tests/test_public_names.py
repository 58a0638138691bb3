"""What a newcomer meets: the names that packages list are few, exist, and say what they are."""

import importlib
import inspect

PARTS = ("tomo", "files", "recon", "pipeline", "laplace", "gp", "linops", "design")
PACKAGES = ("ctuq", *(f"ctuq.{part}" for part in PARTS))


def public():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield package, name, getattr(module, name)


def test_public_names_can_be_learned():
    assert len({id(value) for _, _, value in public()}) < 150


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
