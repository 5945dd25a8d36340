"""A provider that is not there: the OpenAI and Anthropic wire formats, answered by rule instead of by a model."""
