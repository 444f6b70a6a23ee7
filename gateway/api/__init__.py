"""The HTTP surface besides /admin/v1: the OpenAI dialect, health, metrics and documentation."""
