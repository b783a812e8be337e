"""What a report draws: charts, and the panels made of them."""
