"""Decoding modes, one file each."""
