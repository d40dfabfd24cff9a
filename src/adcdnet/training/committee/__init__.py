"""Several classifiers trained on folds of the labelled ground, judged where they did not train, and weighed."""
