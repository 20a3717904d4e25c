"""The ingestion daemon: sees the folder, and drives every picture in it to *indexed* or to *failed* with a reason."""
