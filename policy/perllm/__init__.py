"""PerLLM's set-up (Yang et al., arXiv 2405.14636), simulated: five edges and a cloud under closed-loop load."""
