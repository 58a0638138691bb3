"""Whether the intervals of quantities hold the truth, over simulated objects and two real discs."""
