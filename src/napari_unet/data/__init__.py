"""Arrays in, arrays out: axes, labels, brightness, patches, tiles and figures.

Nothing here opens files, starts threads, reads the environment or draws random numbers that
were not handed in.
"""
