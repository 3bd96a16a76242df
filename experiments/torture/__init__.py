"""The campaign against flsim itself: kills, full disks, damaged files, greedy fleets; see docs/reliability.md."""
