"""A paper's tables over several simulated worlds, as a page of Markdown, its numbers as JSON, and pictures."""
