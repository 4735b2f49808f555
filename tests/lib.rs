//! Behaviour tests of Dispatch against its real parts. Each folder is one test target; `tests/run` runs them all.
