"""Vectors that were made elsewhere, on their way into the service: read part by part, given, and given again until their picture is there."""
