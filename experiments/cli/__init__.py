"""Code shared by the commands: arguments, config files, work directories, terminal output."""
