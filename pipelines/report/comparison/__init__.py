"""The page of a comparison: what stands on it, typed, and how it is written."""
