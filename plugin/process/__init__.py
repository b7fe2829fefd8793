"""What a program shares with the system it runs on: files, signals, memory, random streams, other processes."""
