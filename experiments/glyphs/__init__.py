"""Small glyphs and digits from few angles: every kind of error bars against the truth, by angles, noise and size of patches."""
