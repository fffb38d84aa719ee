"""Mathematics that several jobs share; each module is imported by its own name."""
