"""What searches leave, typed, and their pictures."""
