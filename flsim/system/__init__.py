"""What devices, links and the cloud take in time and energy: pure functions of counts and settings."""
