"""`make bench`: figures beside something real, in one run, as ratios."""
