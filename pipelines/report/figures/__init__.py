"""Pictures as self-contained data URLs, one file a kind; what they share is in `style`."""
