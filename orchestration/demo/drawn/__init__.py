"""Drawn tasks: pictures of charts and scenes, and questions about them with answers and demonstrations."""
