"""What crosses between processes: messages and their frames, and memory that several map."""
