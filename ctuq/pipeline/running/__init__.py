"""What every run has: options, plan, checkpoint, device, threads, and how far it is."""
