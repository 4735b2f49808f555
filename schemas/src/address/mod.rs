//! Addresses that can only be made valid.
