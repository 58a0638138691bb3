"""Gaussian models of an image that angle design can learn."""
