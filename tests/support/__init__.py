"""What tests and stress programs need in more than one place."""
