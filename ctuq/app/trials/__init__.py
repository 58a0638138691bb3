"""The command that compares strategies on a known object."""
