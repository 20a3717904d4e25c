"""The command `imagesearch`: each module is one word of it."""
