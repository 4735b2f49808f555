//! Send keys: the ids under which providers know our deliveries.
//!
//! A send key is one AES-256 block over (campaign, seq, epoch): random to an outsider, and read back without an
//! index, so a callback that carries one finds its delivery by computation.

use aws_lc_rs::{
    cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey},
    digest,
};
use dispatch_schemas::ids::CampaignId;

use crate::message::{SendKey, Token};

const SEQ_BYTES: usize = 5;

/// Makes and reads send keys.
pub struct SendKeys {
    encrypt: EncryptingKey,
    decrypt: DecryptingKey,
}

impl std::fmt::Debug for SendKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendKeys(***)")
    }
}

impl SendKeys {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "AES-256 takes any 32 bytes, and the type says 32")]
        let unbound = || UnboundCipherKey::new(&AES_256, key).expect("32 bytes are an AES-256 key");
        #[expect(clippy::expect_used, reason = "one-block encryption takes any AES key")]
        Self {
            encrypt: EncryptingKey::ecb(unbound()).expect("an AES key encrypts"),
            decrypt: DecryptingKey::ecb(unbound()).expect("an AES key decrypts"),
        }
    }

    /// The send key of a delivery. `epoch` goes up after a definite refusal only, so that a provider that remembers
    /// the keys of refused requests can't make us believe in an acceptance.
    #[must_use]
    pub fn make(&self, campaign: CampaignId, seq: i64, epoch: u8) -> SendKey {
        let mut block = [0_u8; 16];
        block[..8].copy_from_slice(&campaign.0.to_be_bytes());
        block[8..8 + SEQ_BYTES].copy_from_slice(&seq.to_be_bytes()[8 - SEQ_BYTES..]);
        block[8 + SEQ_BYTES] = epoch;
        #[expect(clippy::expect_used, reason = "the input is one whole block")]
        self.encrypt.encrypt(&mut block).expect("one block encrypts");
        SendKey(block)
    }

    /// The delivery and epoch a send key stands for; `None` for a key that is not ours.
    #[must_use]
    pub fn read(&self, key: SendKey) -> Option<(CampaignId, i64, u8)> {
        let mut block = key.0;
        self.decrypt.decrypt(&mut block, DecryptionContext::None).ok()?;
        if block[9 + SEQ_BYTES..] != [0, 0] {
            return None;
        }
        let mut campaign = [0; 8];
        campaign.copy_from_slice(&block[..8]);
        let mut seq = [0; 8];
        seq[8 - SEQ_BYTES..].copy_from_slice(&block[8..8 + SEQ_BYTES]);
        Some((CampaignId(i64::from_be_bytes(campaign)), i64::from_be_bytes(seq), block[8 + SEQ_BYTES]))
    }

    /// The idempotency key of a request of many recipients, made from the token of the first attempt with it. A
    /// version 8 UUID (RFC 9562).
    #[must_use]
    pub fn batch_key(root: Token) -> SendKey {
        let hash = digest::digest(&digest::SHA256, &root.0);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        SendKey(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_send_key_reads_back(campaign in 0..i64::MAX, seq in 0_i64..1 << 40, epoch: u8) {
            let keys = SendKeys::new(&[3; 32]);
            let key = keys.make(CampaignId(campaign), seq, epoch);
            prop_assert_eq!(keys.read(key), Some((CampaignId(campaign), seq, epoch)));
            prop_assert_eq!(key.to_string().parse::<SendKey>(), Ok(key));
        }
    }

    #[test]
    fn a_foreign_key_is_not_ours() {
        let ours = SendKeys::new(&[3; 32]);
        let theirs = SendKeys::new(&[4; 32]);
        let foreign = (0..64).filter(|seq| ours.read(theirs.make(CampaignId(1), *seq, 0)).is_some()).count();
        assert_eq!(foreign, 0);
    }
}
