"""The ray transform between images and sinograms, and its backends."""
