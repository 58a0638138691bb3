"""Prior covariances of a network's weights."""
