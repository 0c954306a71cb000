"""The stages that a row passes, and what runs them chunk by chunk."""
