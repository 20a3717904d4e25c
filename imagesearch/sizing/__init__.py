"""What so many pictures take: measured costs of one picture, formulas over them, and what failing machines cost. Imports nothing heavy."""
