"""Materials as data: modes, layers, superstructure and gap template of a crystal, with sources."""
