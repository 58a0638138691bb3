"""HDF5 of other programs: its layouts, and what all of them share."""
