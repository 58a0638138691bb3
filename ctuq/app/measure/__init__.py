"""``ctuq measure``: quantities of a result, with intervals, on the terminal and in a table."""
