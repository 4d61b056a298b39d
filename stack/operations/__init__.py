"""The stories: what each command does, readable from top to bottom. They look, plan, write and ask; the CLI prints."""
