//! The HTTP mechanism the providers share.
