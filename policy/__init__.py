"""Where a task runs: candidates and their features, utility, the guard, and every policy."""
