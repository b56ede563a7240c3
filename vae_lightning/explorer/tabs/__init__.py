"""One tab of the page per file: its controls, and what they show."""
