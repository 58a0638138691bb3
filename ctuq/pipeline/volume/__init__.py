"""The job of a volume."""
