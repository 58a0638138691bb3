"""What a map of standard deviations is good for: small defects told from artefacts, and errors found where it is bright."""
