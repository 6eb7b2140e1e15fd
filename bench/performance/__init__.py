"""Gateway beside what people would pick instead; what it finds is docs/performance.md. See ``__main__``."""
