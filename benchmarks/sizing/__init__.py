"""What a picture costs, and what failing machines cost: measured and simulated for docs/explanation/sizing.md."""
