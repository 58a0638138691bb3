"""Products with the Jacobian of a network, linearised once."""
