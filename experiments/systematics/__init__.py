"""Systematic errors in the model: what they are worth on scans with one defect, with none, and on real ones."""
