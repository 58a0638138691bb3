"""One module a file format, those of scanners and HDF5 of other programs in folders of their own; `detect` tells them apart."""
