"""What any program needs of its machine: files, locks, memory, processors, GPUs."""
