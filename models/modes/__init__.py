"""Decoding modes, one file each; see models/decoding.py for what they have in common."""
