"""Real data as task groups: rows of any data set become items, items are dealt to devices, devices draw from theirs."""
