"""Angle design at a scanner: a session in a file, opened by one command after the other."""
