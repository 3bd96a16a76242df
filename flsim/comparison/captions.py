"""How to read the figures of a comparison; what is said below each, and to readers who do not see it."""

CAPTIONS = {
    "paired.png": "Every user against itself: a dot is the mean difference over users and seeds, the line its 95 % "
    "interval (bootstrap over seeds, then users); hollow dots are not told from 0. At the right: the share of (seed, "
    "user) pairs that are better off, equal ones counting half, and how many are worse off.",
    "pareto.png": "Accuracy against spend: large dots are means over seeds, small ones single seeds, letters name the "
    "methods. Nothing lies above and left of the grey line. Dashed levels are bounds; an arrow stands for one outside "
    "the panel.",
    "questions.png": "Accuracy at the end against what a test question takes, granted or not: whether it is sent, "
    "tokens of the cloud, bytes to and from it, joules of the device's battery and seconds until it is answered. Large "
    "dots are means over seeds, small ones single seeds. Nothing lies above and left of the grey line. Where "
    "methods lie far apart, an axis is of logarithms.",
    "costs.png": "Accuracy of the mean user over what the run had taken by each test: virtual time, joules of all "
    "batteries, bytes of adapters and of texts to and from the cloud, and money; mean over seeds, the "
    "band from the lowest to the highest seed. Lines join tests, letters stand at the ends. On the "
    "dashed line lies the accuracy to reach: a diamond where a method gets there (median of seeds), an "
    "open arrow at the end of one that does not.",
    "spend.png": "Accuracy at test against what training and test cost together: each line is a method that sends more "
    "and more of its test prompts, the highest asking scores first, and begins at what its training has cost. Dots are "
    "the methods as they were tested. Where lines cross the dashed one, all have spent the same.",
    "reliability.png": "What asking rules claim of the device alone being wrong, and how often it was, all seeds and "
    "users together. A dot is a tenth of the claims, as large as it holds many prompts; on the dashed line claims come "
    "true, above it the device is wrong more often than claimed. Below: how many prompts each tenth holds. Rules whose "
    "scores are no chances have no line.",
    "curves.png": "Mean over seeds of the mean user, measured on the users' own tests. Dotted verticals are switches "
    "of the stream.",
    "asking.png": "Mean over seeds of the mean user, while training. Usage should settle at the budget τ; the price of "
    "asking rises while a device asks more than that. Dotted verticals are switches of the stream.",
    "users.png": "How users differ: the line is the mean user's accuracy when it may ask, the band reaches from the "
    "10th to the 90th percentile of users (each the mean over seeds), the dashed line is the mean user of the method "
    "that the others are paired with. Dotted verticals are switches of the stream.",
}
"""How to read each figure; also its text for readers who do not see it."""
