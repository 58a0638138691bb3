"""How many held-out views set the size of the error bars, and by which priors; ``python -m experiments.calibration``."""
