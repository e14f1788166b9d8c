"""What several tests or stress programs need."""
