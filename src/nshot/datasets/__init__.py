"""Labelled images: folders by label, tables, the Hub."""
