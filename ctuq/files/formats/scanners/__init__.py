"""What scanners write: pictures beside a text file, and files of their own kind."""
