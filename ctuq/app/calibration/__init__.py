"""``ctuq calibrate``: error bars for the image of any program, sized by views that it was not given."""
