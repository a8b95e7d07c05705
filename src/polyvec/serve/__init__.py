"""A server in the shapes of OpenAI, Ollama, TEI and Cohere."""
