"""The Gaussian-linear model of a scan's image: its problem for the engine, and the posterior of its image."""
