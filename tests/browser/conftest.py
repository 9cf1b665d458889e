"""The fixtures of these tests."""

from browsing import browser, drawings, open_page, page, server

__all__ = ["browser", "drawings", "open_page", "page", "server"]
