//! Cursors: where a list goes on, sealed against change.
//!
//! A cursor is `version, position, MAC` in base64url. The MAC covers the tenant and the list it was given for (path
//! and filter), so a cursor taken elsewhere, or made up, is refused.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dispatch_schemas::ids::TenantId;
use dispatch_workers::sealing::MasterKey;

use super::problem::{Answer, Kind, Problem};

const VERSION: u8 = 1;
const MAC_LEN: usize = 16;
/// The longest position is an address hash and a reason.
const POSITION_MAX: usize = 48;
const TEXT_MAX: usize = (1 + POSITION_MAX + MAC_LEN).div_ceil(3) * 4;

/// Makes and checks cursors.
#[derive(Debug)]
pub struct Cursors(hmac::Key);

impl Cursors {
    /// Cursors of this installation: all its processes take each other's.
    #[must_use]
    pub fn new(master: &MasterKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &master.derive("cursors")))
    }

    /// Seals a position in a list.
    #[must_use]
    pub fn seal(&self, tenant: TenantId, list: &str, position: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(1 + position.len() + MAC_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(position);
        let mac = self.mac(tenant, list, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens a cursor.
    ///
    /// # Errors
    /// When it was not sealed here for this tenant and list.
    pub fn open(&self, tenant: TenantId, list: &str, cursor: &str) -> Answer<Vec<u8>> {
        self.position(tenant, list, cursor).ok_or_else(refused)
    }

    fn position(&self, tenant: TenantId, list: &str, cursor: &str) -> Option<Vec<u8>> {
        if cursor.len() > TEXT_MAX {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let mac = bytes.split_off(bytes.len().checked_sub(MAC_LEN)?);
        aws_lc_rs::constant_time::verify_slices_are_equal(&mac, &self.mac(tenant, list, &bytes)).ok()?;
        match bytes.split_first()? {
            (&VERSION, position) => Some(position.to_vec()),
            _ => None,
        }
    }

    fn mac(&self, tenant: TenantId, list: &str, bytes: &[u8]) -> [u8; MAC_LEN] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&tenant.0.to_be_bytes());
        context.update(&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)]);
        context.update(bytes);
        context.update(list.as_bytes());
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_LEN]);
        mac
    }
}

/// The answer to a cursor that is not ours, or holds something this list cannot go on from.
pub(super) fn refused() -> Problem {
    Problem::new(
        Kind::CURSOR,
        "hand back `next_cursor` unchanged with the path and filters it was given for, or start without a cursor",
    )
}

/// A position that is one number.
pub(super) fn number(position: &[u8]) -> Answer<i64> {
    position.try_into().map(i64::from_be_bytes).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use dispatch_workers::clock::SystemEntropy;
    use proptest::prelude::*;

    use super::*;

    fn cursors() -> Cursors {
        Cursors::new(&MasterKey::generate(&SystemEntropy::default()))
    }

    #[test]
    fn a_cursor_opens_for_its_own_tenant_and_list_only() {
        let cursors = cursors();
        let cursor = cursors.seal(TenantId(1), "campaigns", &7_i64.to_be_bytes());
        assert_eq!(cursors.open(TenantId(1), "campaigns", &cursor).and_then(|p| number(&p)), Ok(7));
        assert!(cursors.open(TenantId(2), "campaigns", &cursor).is_err());
        assert!(cursors.open(TenantId(1), "recipients", &cursor).is_err());
        let other = Cursors::new(&MasterKey::generate(&SystemEntropy::default()));
        assert!(other.open(TenantId(1), "campaigns", &cursor).is_err());
    }

    #[test]
    fn one_changed_character_is_noticed() {
        let cursors = cursors();
        let cursor = cursors.seal(TenantId(1), "campaigns", &7_i64.to_be_bytes());
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(cursors.open(TenantId(1), "campaigns", &changed).is_err(), "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_open(text in "[-_A-Za-z0-9=+/]{0,120}", other in ".{0,40}") {
            let cursors = cursors();
            prop_assert!(cursors.open(TenantId(1), "campaigns", &text).is_err());
            prop_assert!(cursors.open(TenantId(1), "campaigns", &other).is_err());
        }
    }
}
