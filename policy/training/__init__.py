"""How policies learn: everything in here needs torch, and nothing that decides imports it."""
