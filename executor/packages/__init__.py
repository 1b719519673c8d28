"""Packages of a session: fetched here, where the network is, by pip and npm; nothing of a package ever runs here."""
