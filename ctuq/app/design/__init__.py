"""The commands of angle design."""
