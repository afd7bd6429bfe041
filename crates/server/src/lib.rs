//! The binary exeunt: configuration, composition root, background tasks, subcommands.
