"""A person's or a team's own documents: read, cut, embedded, kept and found again."""
