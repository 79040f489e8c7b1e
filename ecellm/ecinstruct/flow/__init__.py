"""How a build works out of core and on all cores: rows sorted into parts by a hash, each part small enough for
memory."""
