"""Costs, measured beside the libraries that do the same."""
