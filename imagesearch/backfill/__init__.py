"""Millions of pictures on their way into the service: read from a source, brought once, followed to their end, whatever dies meanwhile."""
