"""What the commands share: arguments, config files, work directories, what a person sees."""
