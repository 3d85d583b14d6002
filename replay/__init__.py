"""A recorded run's messages, fed into its processes again: do they still decide and answer as they did?"""
