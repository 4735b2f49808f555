//! The criterion benches of the hot paths; `benches/README.md` says how to measure and what came of it.
