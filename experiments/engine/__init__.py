"""Experiments with the general engine: toy regression, digits, LeNet, priors and evidence."""
