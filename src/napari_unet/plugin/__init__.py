"""What the manifest points to: readers, writers and sample data. Thin, over `files` and `data`."""
