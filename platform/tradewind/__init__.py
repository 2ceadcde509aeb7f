"""Tradewind serves open models on your own GPUs behind one OpenAI-compatible endpoint."""
