"""The kernel's layers that hold a worker: what each does, whether this host has it, and how a worker enters them."""
