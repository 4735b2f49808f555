//! The sandbox: fakes of the providers over real sockets, and the witness that logs what they accepted.

pub mod witness;
