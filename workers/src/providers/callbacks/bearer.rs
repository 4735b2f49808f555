//! Callbacks that carry a token: `Authorization: Bearer …`.
//!
//! The token says who calls, not that the body is what they wrote, so what it reports is a claim: it may lift a state and
//! close a gate, and nothing in this program opens one on a report.

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use secrecy::ExposeSecret as _;

use super::{Call, Credentials, Rejection, Verifier, networks::Networks, nothing_to_know_by};
use crate::providers::AccountError;

/// Fewer bytes could be guessed.
const TOKEN_BYTES_MIN: usize = 32;

/// Knows callers by a token, and by where they come from.
pub(in crate::providers) struct Bearer {
    /// Hashes, so that all have one length and a comparison tells none.
    tokens: Vec<[u8; 32]>,
    networks: Networks,
}

impl Bearer {
    pub(in crate::providers) fn build(credentials: &Credentials) -> Result<Box<dyn Verifier>, AccountError> {
        if credentials.secrets.is_empty() {
            return Err(nothing_to_know_by("`secret_file` to a file with the token its webhooks carry"));
        }
        let mut tokens = Vec::with_capacity(credentials.secrets.len());
        for secret in &credentials.secrets {
            let token = secret.expose_secret().as_bytes();
            if token.len() < TOKEN_BYTES_MIN {
                return Err(AccountError::Setting(format!(
                    "the token of its callbacks is too short; wanted: {TOKEN_BYTES_MIN} random characters or more"
                )));
            }
            tokens.push(hash(token));
        }
        Ok(Box::new(Self { tokens, networks: Networks::read(credentials.networks.as_deref())? }))
    }
}

impl Verifier for Bearer {
    fn verify(&self, call: &Call<'_>) -> Result<(), Rejection> {
        let value = call.header("authorization")?;
        let (scheme, token) = value.split_at_checked(7).ok_or(Rejection::Unsigned)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Rejection::Unsigned);
        }
        let given = hash(token);
        // All are compared, so that the time tells nothing about which it was.
        let known = self.tokens.iter().filter(|token| verify_slices_are_equal(*token, &given).is_ok()).count();
        match (known, self.networks.have(call.source)) {
            (0, _) => Err(Rejection::Forged),
            (_, false) => Err(Rejection::Elsewhere),
            (_, true) => Ok(()),
        }
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    out
}
