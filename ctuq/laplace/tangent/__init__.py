"""The linear model of a network: features, Jacobians, likelihoods, checks."""
