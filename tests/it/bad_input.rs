//! Bad input on real machines: a clear error that names object and cure, and nothing changed.
