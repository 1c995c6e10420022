"""One file for each model: a candidate in, a frozen dataclass of named numbers out.

Every scorer reports the task's own figure (perplexity, accuracy) where there are labels, and how far the
candidate is from the float model where there are none.
"""
