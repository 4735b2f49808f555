//! What the engine takes for granted of a provider, and what comes of it where that does not hold.
//!
//! "I have had this key" is taken as proof of acceptance when an earlier request with the key is in doubt. It is none
//! from a provider for which a request that it refused has used the key up. After a refusal that leaves nothing in doubt
//! the next request has a new key, so this matters only where a doubt is older than the refusal.

use super::{checking::must_break, properties::NO_PHANTOM, variants::Variant};

#[test]
fn a_key_that_an_unheard_refusal_used_up_passes_for_accepted() {
    must_break("A, refusals use keys up", Variant::KEY_FOR_A_WHILE.that_remembers_refusals(), NO_PHANTOM);
}

#[test]
fn an_id_that_a_refused_repeat_used_up_passes_for_accepted() {
    must_break("B, refusals use ids up", Variant::CLIENT_ID.that_remembers_refusals(), NO_PHANTOM);
}
