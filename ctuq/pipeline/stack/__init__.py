"""The job of a stack of slices."""
