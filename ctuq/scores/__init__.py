"""Scores of predictions: of Gaussian ones and of classes."""
