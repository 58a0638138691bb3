"""One module a file format, and the one that tells them apart."""
