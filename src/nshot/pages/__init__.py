"""What every HTML page shares: its frame, its style, its charts."""
