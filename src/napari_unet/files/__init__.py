"""The only place that opens files: images, labels, models and run folders."""
