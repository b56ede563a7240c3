"""Images decoded once: the cache, its checks, and what has changed since."""
