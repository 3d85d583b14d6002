"""Large models elsewhere: answers of a cloud node that come from an OpenAI-compatible server.

Nothing here needs torch.
"""
