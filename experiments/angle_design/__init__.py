"""Angle design: how many angles an adaptive choice saves, in simulation and on real scans, and what it costs."""
