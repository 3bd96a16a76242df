"""The command `flsim`: one file per subcommand, imported when it is typed, so that help comes at once."""
