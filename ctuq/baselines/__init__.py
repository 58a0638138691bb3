"""Error bars of other methods, to compare with."""
