"""OpenAI chat completions, said in Anthropic's and in Gemini's words, and back. Pure: values in, values out.

What the other format cannot say is refused where the answer would be another one (several choices, log probabilities,
audio), and left out where it is a hint (seeds, penalties, biases).
"""
