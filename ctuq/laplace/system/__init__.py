"""The regularised system of a linear model and the ways to solve it."""
