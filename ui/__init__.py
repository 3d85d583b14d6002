"""The live page: what a fleet sees, answers and decides, in a browser, from what anybody may hear on the bus."""
