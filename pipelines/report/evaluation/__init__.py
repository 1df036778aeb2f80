"""The page of an evaluation: what stands on it, typed, and how it is written."""
