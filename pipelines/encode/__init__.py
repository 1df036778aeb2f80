"""What preparation and endpoint share: raw columns, what is derived from them, and their encoding as table rows."""
