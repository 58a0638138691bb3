"""The job of one image."""
