"""The learner's process: it hears how tasks ended, learns where to place them, and publishes what proves better."""
