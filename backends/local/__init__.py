"""The embedded local engine: llama.cpp in a child process, and the tiny model shipped for it."""
