"""What a fit says to its reader: a summary for the terminal, charts, one HTML file. It shows values; it finds
none."""
