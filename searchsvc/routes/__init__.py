"""HTTP in and out: each handler parses, asks one domain object, and renders."""
