"""The simulated fleet: vehicles that drive past roadside edges, links, nodes, and what is known of them when."""
