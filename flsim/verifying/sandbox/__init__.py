"""Code under test is shut in; the tests stay outside and judge what comes out."""
