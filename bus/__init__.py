"""The wire: messages, codec, the topic table, the MQTT connection and the broker launcher.

This package imports nothing else of roadside, and no torch.
"""
