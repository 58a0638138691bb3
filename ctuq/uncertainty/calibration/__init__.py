"""Scales of the error bars, learned on views that were held out, for ctuq's own posterior and for any program's."""
