"""HTTP callbacks to the backend: questions that wait for an answer, and events that do not."""
