"""Gaussian process regression on the twelve UCI sets: solvers of ctuq against each other and against gpytorch."""
