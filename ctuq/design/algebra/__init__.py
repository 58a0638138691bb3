"""What a Gaussian model's views are worth: rows, covariances, conditioning, criteria."""
