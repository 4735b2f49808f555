//! What the engine takes for granted of a provider, and what comes of it where that does not hold.
//!
//! "I have had this key" is taken as proof of acceptance while an earlier request with the key is in doubt and none of
//! them is known to have been refused. That would be no proof from a provider for which a request that it refused has
//! used the key up. After a refusal that leaves nothing in doubt the next request has a new key; a repeat that is refused
//! ends the proof; and where there is a log it tells an unheard refusal from an acceptance before anything is repeated.
//! What remains is a refusal that was never recorded, where no log can be asked.

use super::{
    checking::{must_break, must_hold},
    mutants::Flaw,
    properties::NO_PHANTOM,
    variants::{Refusals, Variant},
};

#[test]
fn a_log_tells_an_id_that_a_refusal_used_up_from_one_that_was_accepted() {
    must_hold("B, refusals use ids up", Variant::CLIENT_ID.whose(Refusals::UseTheKeyUp), 181_112);
}

#[test]
fn a_key_that_a_refused_repeat_used_up_does_not_pass_for_accepted() {
    let refusals = Refusals::UseTheKeyUpIfRecorded;
    must_hold("A, known refusals use keys up", Variant::KEY_FOR_A_WHILE.whose(refusals), 534_008);
    must_hold("B, at least once, the same", Variant::CLIENT_ID_AT_LEAST_ONCE.whose(refusals), 210_322);
}

#[test]
fn m16_a_duplicate_after_a_refused_repeat_is_no_proof() {
    let engine = Variant::KEY_FOR_A_WHILE.with(Flaw::DuplicateAlwaysProves);
    must_break("M16", engine.whose(Refusals::UseTheKeyUpIfRecorded), NO_PHANTOM);
}

#[test]
fn a_key_that_an_unheard_refusal_used_up_passes_for_accepted() {
    must_break("A, refusals use keys up", Variant::KEY_FOR_A_WHILE.whose(Refusals::UseTheKeyUp), NO_PHANTOM);
}

#[test]
fn an_id_that_an_unheard_refusal_used_up_passes_for_accepted_once_the_log_is_too_old() {
    let provider = Variant::CLIENT_ID_AT_LEAST_ONCE.whose(Refusals::UseTheKeyUp);
    must_break("B, at least once, refusals use ids up", provider, NO_PHANTOM);
}
