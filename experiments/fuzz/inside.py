"""Sound files with another inside: parts of the wrong type, shape, size or place, links, circles, bombs."""

import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ctuq.records.seal import seal_of

Rng = np.random.Generator


def values(like: np.ndarray, rng: Rng) -> tuple[Any, str]:
    """Something in place of an array."""
    flat = np.ravel(like)
    real = flat.astype(float) if flat.dtype.kind in "biuf" else np.zeros(max(flat.size, 1))
    spoiled = real.copy()
    if spoiled.size:
        spoiled[int(rng.integers(spoiled.size))] = rng.choice([np.nan, np.inf, -1e300, 1e300, -1, 1e-300])
    choices = {
        "no axis": np.float64(3.0),
        "one axis": flat,
        "four axes": like.reshape((1, 1, *like.shape)),
        "turned": like.T,
        "nothing": np.zeros(0),
        "of size 0": np.zeros((0, *like.shape[1:])),
        "one more": np.concatenate([flat, flat[:1]]),
        "complex": like.astype(complex) + 1j if like.dtype.kind in "biuf" else 1j,
        "bool": np.ones(like.shape, bool),
        "text": np.full(like.shape, b"abc"),
        "one word": np.bytes_("abc"),
        "whole": np.ones(like.shape, np.uint8),
        "half": np.zeros(like.shape, np.float16),
        "spoiled": spoiled.reshape(like.shape),
        "all NaN": np.full(like.shape, np.nan),
        "all alike": np.full(like.shape, 1.0),
        "huge": np.full(like.shape, 1e300),
        "negative": -real.reshape(like.shape) - 1,
        "structured": np.zeros(like.shape, [("a", "f4"), ("b", "i4")]),
        "dates": np.zeros(like.shape, "M8[s]"),
        "large": np.zeros((3000, 3000), np.uint8),
    }
    name = str(rng.choice(list(choices)))
    return choices[name], name


def hdf5(path: Path, rng: Rng) -> str:
    """Change one node of an HDF5 file, or add what does not belong there."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[int(rng.integers(len(names)))]
        node: Any = file[name]
        way = int(rng.integers(14))
        if way <= 5 and isinstance(node, h5py.Dataset):
            return f"{name}: {_replaced(file, name, node, rng)}"
        return f"{name}: {_relinked(file, name, node, way, path, rng)}"


def _replaced(file: h5py.File, name: str, node: Any, rng: Rng) -> str:
    told, attributes = values(np.asarray(node[()]) if node.shape is not None else np.zeros(1), rng), dict(node.attrs)
    del file[name]
    made = file.create_dataset(name, data=told[0]) if told[1] != "large" else _lazy(file, name, (3000, 3000))
    made.attrs.update(attributes)
    return told[1]


def _lazy(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    return file.create_dataset(name, shape=shape, dtype="f4", chunks=tuple(min(n, 64) for n in shape))


def _relinked(file: h5py.File, name: str, node: Any, way: int, path: Path, rng: Rng) -> str:
    attributes, keys = dict(node.attrs), list(node.attrs)
    if way in (0, 1) and keys:
        key = keys[int(rng.integers(len(keys)))]
        if way == 0:
            del node.attrs[key]
        else:
            node.attrs[key] = [3, "abc", np.zeros(3), 1e300, b"\xff\xfe", h5py.Empty("f4"), "x" * 60000][int(rng.integers(7))]
        return f"attribute {key}"
    if way == 2:
        file.create_group("more").attrs.update(attributes)
        for number in range(400):
            file["more"].create_group(str(number))
        return "400 groups more"
    if way == 3:
        file[f"{name}-again"] = node
        return "linked twice"
    if way == 4 and isinstance(node, h5py.Group):
        node["self"] = node
        return "a circle"
    del file[name]
    outside = path.parent.parent / "outside.h5"
    ways = {
        5: ("left out", lambda: None),
        6: ("a group", lambda: file.create_group(name)),
        7: ("a soft link to nowhere", lambda: file.__setitem__(name, h5py.SoftLink("/nowhere"))),
        8: ("a soft link to itself", lambda: file.__setitem__(name, h5py.SoftLink(f"/{name}"))),
        9: ("a link outside", lambda: file.__setitem__(name, h5py.ExternalLink(str(outside), "/x"))),
        10: ("storage outside", lambda: file.create_dataset(name, (4,), "u1", external=[(str(outside), 0, 4)])),
        11: ("terabytes", lambda: _lazy(file, name, (10**4, 10**4, 10**4))),
        12: ("a type", lambda: file.__setitem__(name, np.dtype("f4"))),
    }
    told, make = ways.get(way, ways[11])
    made = make()
    if isinstance(made, h5py.Dataset | h5py.Group):
        made.attrs.update(attributes)
    return told


def record(path: Path, rng: Rng) -> str:
    """The same of a file of ours; half of them are sealed again, as an enemy would."""
    told = hdf5(path, rng)
    if rng.random() < 0.5:
        content = path.read_bytes()
        path.write_bytes(content + seal_of(content))
    return told


def npz(path: Path, rng: Rng) -> str:
    """Change one array of an npz file, its header, or how it is packed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(list(members)))
    way, extra = int(rng.integers(8)), {}
    if way <= 3:
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        changed, told = values(array, rng)
        target = io.BytesIO()
        np.save(target, changed)
        members[name] = target.getvalue()
    elif way == 4:
        members[name] = members[name].replace(b"(", b"(9999999", 1)
        told = "a header of millions"
    elif way == 5:
        del members[name]
        told = "left out"
    elif way == 6:
        extra, told = {f"k{i}.npy": b"" for i in range(2000)}, "2000 members more"
    else:
        target = io.BytesIO()
        np.save(target, np.array([{}], dtype=object))
        members[name], told = target.getvalue(), "a pickle"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in (members | extra).items():
            archive.writestr(member, content)
    return f"{name}: {told}"
