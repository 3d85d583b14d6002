"""A run for other programs: Parquet for whoever computes with it, MCAP for whoever looks at it in Foxglove."""
