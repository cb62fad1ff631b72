"""The page of one device, for a person in front of it. Imported with its first request."""
