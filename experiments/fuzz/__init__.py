"""Files of every format, damaged in every way that can be thought of, and what reading them came to.

``python -m experiments.fuzz`` makes the table of the full size; tests run the same cases, fewer of them.
"""
