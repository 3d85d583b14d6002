"""Measurements that the README and the docs quote, each a verb of `roadside bench`."""
