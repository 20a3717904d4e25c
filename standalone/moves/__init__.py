"""`make move-vectors`: all points from Qdrant Edge to a server, or back, or to another server, as they are: no model is asked for anything."""
