"""A provider that is not there: the wire formats of OpenAI, Anthropic and Gemini, answered by rule, not by a model."""
