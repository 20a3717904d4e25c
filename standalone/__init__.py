"""The top floor: the whole product in one process tree, with Qdrant embedded (`make run`)."""
