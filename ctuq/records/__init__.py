"""Nested values in one HDF5 file: written whole or not at all, sealed by a checksum, read back equal, never a pickle.

A tree is a dict with string keys whose values are arrays of numbers, str, float, int, bool, None, tuples or dicts of these.
"""

from ctuq.records.files import FORMAT, kind_of, opened_record, read, write, write_hdf5
from ctuq.records.heap import refuse_endless_heap
from ctuq.records.seal import checksum, is_sealed
from ctuq.records.tree import Blocks, Tree, put_tree, tree_in
from ctuq.records.typed import made
from ctuq.records.whole import write_whole

__all__ = [
    "FORMAT",
    "Blocks",
    "Tree",
    "checksum",
    "is_sealed",
    "kind_of",
    "made",
    "opened_record",
    "put_tree",
    "read",
    "refuse_endless_heap",
    "tree_in",
    "write",
    "write_hdf5",
    "write_whole",
]
