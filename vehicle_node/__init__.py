"""A vehicle: replays a log, makes tasks, decides where they run, and never leaves the driver without an answer."""
