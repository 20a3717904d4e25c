"""Ingestion by a queue: the watcher sends tasks to a broker, any number of worker processes do them."""
