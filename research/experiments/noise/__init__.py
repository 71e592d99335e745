"""The study of adversarial noise."""
