"""Load: many real clients on a real server for minutes, with all that people and hostile code do (`make load`)."""
