"""A writer of small OLE compound files, as no library on PyPI writes them."""

import struct
from pathlib import Path

_SECTOR, _MINI, _SMALL = 512, 64, 4096
_END, _FREE, _FAT, _NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF


class _Sectors:
    """Streams one after the other in sectors of one size, with the table that chains them."""

    def __init__(self, size):
        self.size, self.content, self.table = size, b"", []

    def add(self, data):
        if not data:
            return _END
        start, count = len(self.table), -(-len(data) // self.size)
        self.content += data + b"\0" * (-len(data) % self.size)
        self.table += [*range(start + 1, start + count), _END]
        return start


def write_compound(path: Path, streams: dict[str, bytes]) -> Path:
    """Write streams named ``storage/stream``."""
    nodes = [{"name": "Root Entry", "type": 5, "children": {}, "data": b""}]
    for name, data in streams.items():
        at = 0
        for part in name.split("/"):
            children = nodes[at]["children"]
            if part not in children:
                nodes.append({"name": part, "type": 1, "children": {}, "data": b""})
                children[part] = len(nodes) - 1
            at = children[part]
        nodes[at] |= {"type": 2, "data": data}
    large, small = _Sectors(_SECTOR), _Sectors(_MINI)
    for node in nodes[1:]:
        node["start"] = (small if len(node["data"]) < _SMALL else large).add(node["data"])
    nodes[0] |= {"start": large.add(small.content), "data": small.content}
    minis = large.add(_numbers(small.table))
    first = large.add(b"".join(_entry(number, nodes) for number in range(len(nodes))))
    tables = 1
    while tables * (_SECTOR // 4) < len(large.table) + tables:
        tables += 1
    places = range(len(large.table), len(large.table) + tables)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + b"\0" * 6
    header += struct.pack("<IIIIIIIII", 0, tables, first, 0, _SMALL, minis, -(-len(small.table) // 128), _END, 0)
    header += _numbers([*places, *[_FREE] * (109 - tables)])
    path.write_bytes(header + large.content + _numbers([*large.table, *[_FAT] * tables], tables * (_SECTOR // 4)))
    return path


def _numbers(values, count=None):
    count = count or -(-len(values) // 128) * 128 if len(values) != 109 else 109
    return struct.pack(f"<{count}I", *values, *[_FREE] * (count - len(values)))


def _entry(number, nodes):
    """A directory entry; siblings hang in a chain to the right, by length and upper case as the format sorts them."""

    def ordered(children):
        return sorted(children.values(), key=lambda n: (len(nodes[n]["name"]), nodes[n]["name"].upper()))

    node, right = nodes[number], _NONE
    for parent in nodes:
        siblings = ordered(parent["children"])
        if number in siblings[:-1]:
            right = siblings[siblings.index(number) + 1]
    inside = ordered(node["children"])
    name = (node["name"] + "\0").encode("utf-16-le")
    head = name.ljust(64, b"\0") + struct.pack(
        "<HBBIII", len(name), node["type"], 1, _NONE, right, inside[0] if inside else _NONE
    )
    return head + b"\0" * 36 + struct.pack("<IQ", node["start"], len(node["data"]))
