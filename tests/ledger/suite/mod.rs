//! What every ledger must do, whatever it is kept in.
//!
//! The cases are functions over a [`Fixture`], which makes places for ledgers; [`conformance!`](crate::conformance)
//! makes a test of each. Another ledger runs the same cases with a fixture of its own.

pub(crate) mod asking_again;
pub(crate) mod claiming;
pub(crate) mod erasing;
pub(crate) mod expansion;
pub(crate) mod forgetting;
pub(crate) mod gates;
pub(crate) mod imports;
pub(crate) mod interleaving;
pub(crate) mod launching;
pub(crate) mod loading;
pub(crate) mod looking;
pub(crate) mod messages;
pub(crate) mod once;
pub(crate) mod operator_limits;
pub(crate) mod people;
pub(crate) mod recording;
pub(crate) mod remembering;
pub(crate) mod reporting;
pub(crate) mod sending;
pub(crate) mod settling;
pub(crate) mod stopping;
pub(crate) mod tenants;
pub(crate) mod world;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use dispatch_engine::{ledger::Ledger, second_place::SecondPlace};
use dispatch_schemas::ids::{CampaignId, ListId, TenantId};
use dispatch_workers::{
    clock::{Clock, Entropy},
    sealing::MasterKey,
};

/// Makes places for ledgers.
pub(crate) trait Fixture: Sync {
    /// A new place without anything in it.
    fn place(&self) -> Box<dyn Place>;
}

/// Where one ledger is kept. What is read here is read past the ledger, for what it does not tell.
#[async_trait(?Send)]
pub(crate) trait Place: Send + Sync {
    /// Opens the ledger with all that was there before, beside this second place.
    async fn open(
        &self,
        master: &MasterKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        second_place: SecondPlace,
    ) -> Arc<dyn Ledger>;
    /// Where that is: the path of a file, the name of a schema.
    fn whereabouts(&self) -> PathBuf;
    /// A campaign's counts and rows at one moment.
    async fn counts(&self, campaign: CampaignId) -> Counts;
    /// Contacts that are stored in a list, seen or unseen.
    async fn contacts(&self, list: ListId) -> i64;
    /// New values that wait for the end of their upload.
    async fn changes(&self) -> i64;
    /// Variables of single messages that are kept.
    async fn variables(&self) -> i64;
    /// Whether any row of a contact of this tenant holds these bytes.
    async fn holds(&self, tenant: TenantId, bytes: &[u8]) -> bool;
}

/// A campaign's deliveries by state, as they are counted and as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) tally: BTreeMap<(String, String), i64>,
    pub(crate) rows: BTreeMap<(String, String), i64>,
    pub(crate) audience: i64,
}

impl Counts {
    /// What is counted is what there is, and all of the audience.
    pub(crate) fn assert_add_up(&self) {
        assert_eq!(self.tally, self.rows, "the counts are those of the rows");
        assert_eq!(self.rows.values().sum::<i64>(), self.audience, "every recipient is in one state");
    }
}

/// A test of each case, on this fixture.
#[macro_export]
macro_rules! conformance {
    ($fixture:expr) => {
        $crate::conformance! { @cases $fixture;
            claiming {
                a_claim_marks_ready_deliveries_and_says_what_to_send
                what_is_claimed_cannot_be_claimed_again
                a_number_named_twice_is_claimed_once
                every_claim_has_a_token_of_its_own_and_is_counted_in_past_sends
                a_campaign_that_does_not_run_gives_nothing
                a_campaign_past_its_end_gives_nothing
                a_campaign_outside_its_sending_window_gives_nothing
                another_tenants_campaign_gives_nothing
                a_delivery_that_waits_for_its_destination_comes_back_in_time
                destinations_are_told_in_the_order_asked
            }
            recording {
                an_accepted_delivery_is_done
                each_recipient_keeps_the_id_its_provider_gave_it
                a_refused_delivery_is_failed_with_its_code
                a_delivery_that_could_not_be_made_fails_without_a_try
                a_deferred_delivery_waits_and_tries_again_with_a_new_key
                a_throttled_delivery_loses_no_attempt
                a_released_delivery_is_as_it_was
                a_delivery_that_must_travel_alone_does_so_from_then_on
                an_unanswered_delivery_is_unknown
                an_erased_delivery_is_stopped
                a_key_that_was_never_used_and_is_refused_as_used_fails
                a_key_in_doubt_that_is_refused_as_used_was_accepted
                one_record_may_hold_every_outcome
                a_record_made_twice_counts_once
                a_record_in_parts_ends_the_attempt_with_the_last
                a_late_acceptance_beats_everything
                a_late_refusal_changes_nothing
                a_late_duplicate_proves_nothing
                a_record_of_another_attempt_changes_nothing
            }
            reporting {
                a_report_is_kept_and_tells_what_became_of_the_message
                a_report_that_comes_again_counts_once
                the_same_reports_in_any_order_and_grouping_come_to_the_same
                a_report_proves_acceptance_in_any_state
                a_report_that_proves_nothing_changes_no_state
                a_report_before_the_record_is_believed_and_the_record_changes_nothing
                a_delivery_that_was_never_sent_is_not_accepted_by_a_report
                the_variables_of_a_message_go_when_a_report_ends_it
                a_delivery_is_found_for_the_account_that_sends_it_only
                the_members_of_a_request_are_found_by_its_key
                a_report_without_a_message_is_kept_and_looked_at_again
                what_is_too_old_is_forgotten
            }
            settling {
                what_has_no_outcome_in_time_is_unknown
                a_recorded_attempt_is_not_reaped
                an_unknown_delivery_is_not_looked_at_before_its_time
                what_the_log_has_is_accepted
                what_the_log_refused_fails_and_is_retried_with_a_new_key
                what_the_log_lacks_is_sent_again_with_the_same_key
                what_the_log_lacks_is_stopped_when_its_gate_has_closed
                what_the_log_lacks_is_stopped_when_its_campaign_was_cancelled
                what_the_log_lacked_is_stopped_when_its_gate_closes_later
                what_the_log_lacked_is_refused_like_any_other
                what_the_log_lacked_was_still_tried_with_its_key
                a_resend_is_counted
                a_resend_with_the_same_key_is_as_old_as_its_key
                a_duplicate_after_a_refused_resend_proves_nothing
                what_cannot_be_decided_stays_undecided
                what_is_not_known_yet_is_looked_at_later
                a_verdict_on_another_attempt_changes_nothing
                a_look_shows_a_request_whole
            }
            asking_again {
                a_request_is_asked_again_with_its_first_token
                a_member_whose_gate_has_closed_is_not_asked_for
                what_was_asked_again_without_an_answer_keeps_its_first_token
                a_repeat_that_was_not_made_leaves_the_first_in_doubt
                a_repeat_that_was_refused_for_now_leaves_the_first_in_doubt
                a_repeat_that_was_refused_for_good_leaves_the_first_in_doubt
                a_repeat_that_could_not_be_made_leaves_the_first_in_doubt
                a_repeat_that_was_not_made_uses_no_key_up
                a_duplicate_after_a_refused_repeat_proves_nothing
                a_refused_repeat_is_remembered_through_a_lost_one
                a_request_is_asked_again_whole_or_not_at_all
                a_key_the_provider_has_forgotten_is_not_asked_with
                what_travelled_alone_is_asked_again_alone
            }
            forgetting {
                a_quarantine_gives_nothing_to_claim
                a_quarantine_is_begun_once_and_ends_once
                the_head_moves_on_but_for_a_quarantine
                a_claim_that_is_not_known_is_told_from_one_that_is
                a_forgotten_claim_is_made_again_with_its_keys
                a_forgotten_repeat_keeps_the_first_ones_key
                a_forgotten_claim_takes_over_from_an_earlier_one
                what_is_final_is_not_doubted
                nothing_is_marked_when_the_quarantine_is_over
                where_nobody_noted_all_that_could_be_sent_is_doubted
                recipients_of_a_paused_campaign_are_found_when_it_may_have_run
            }
            remembering {
                what_is_closed_and_claimed_is_in_the_second_place
                a_claim_that_cannot_be_noted_is_given_back
                a_closing_that_cannot_be_noted_is_not_answered
                a_ledger_behind_its_second_place_is_told_what_it_forgot
                a_ledger_that_lost_a_moment_is_told_what_it_forgot
                what_was_opened_again_stays_open
                a_draft_that_was_sent_is_not_sent_again
                a_ledger_that_forgot_nothing_goes_on
                an_operator_may_accept_duplicates_and_nobody_who_opted_out
            }
            gates {
                a_closed_gate_stops_the_delivery_with_its_reason
                an_opt_out_from_advertising_does_not_stop_a_service_message
                a_gate_closed_after_a_claim_is_reported_in_flight
                in_flight_counts_one_channel_and_every_campaign
                a_gate_is_closed_once_per_reason
                an_opened_gate_lets_through_unless_another_reason_holds
                a_gate_is_its_tenants_own
                suppressions_are_listed_in_pages
            }
            erasing {
                an_erased_person_is_gone_and_their_deliveries_stop
                an_erasure_closes_the_persons_other_address
                an_erased_person_does_not_come_back_with_an_upload
                an_erasure_while_claimed_is_reported_and_the_outcome_still_recorded
                an_erasure_counts_the_list_down
                an_erasure_during_an_upload_keeps_the_count_of_the_list
                an_erasure_reaches_the_values_that_wait_for_an_upload
                what_may_have_been_sent_to_an_erased_person_stays_undecided
                erasing_an_unknown_person_tells_nothing
            }
            expansion {
                a_campaign_finds_its_recipients_in_chunks
                an_expansion_goes_on_where_it_was_when_the_ledger_reopens
                an_address_in_three_lists_is_written_to_once
                a_list_named_twice_is_one_list
                a_phone_number_of_two_people_is_written_to_once
                only_contacts_with_an_address_of_the_channel_are_found
                contacts_of_an_unfinished_upload_are_not_seen
                contacts_that_came_after_the_launch_are_not_seen
                a_paused_campaign_finds_nobody
            }
            imports {
                every_row_counts_once
                a_contact_keeps_its_old_values_until_the_upload_completes
                an_upload_rolled_back_leaves_nothing
                an_upload_cut_off_is_removed_at_the_next_start
                an_upload_that_was_being_applied_is_finished_at_the_next_start
                a_list_takes_one_upload_at_a_time
                an_upload_that_has_ended_takes_no_more_contacts
                a_suppressed_address_is_not_stored
                a_contact_with_one_open_address_keeps_that_one
                an_upload_is_its_tenants_own
                a_list_has_the_fields_of_its_completed_uploads
                a_list_keeps_the_names_of_a_bounded_number_of_fields
            }
            loading {
                a_messy_file_comes_to_its_truth
                the_same_file_again_adds_nobody
                a_file_that_breaks_off_leaves_nothing
                a_loaded_list_is_written_to_once_per_address
            }
            once {
                a_repeated_call_gets_the_first_answer_and_does_nothing
                a_key_used_for_another_request_is_refused
                a_key_is_its_tenants_and_its_routes_own
                a_refused_call_leaves_its_key_unused
                an_old_answer_is_forgotten
                a_launch_is_repeated_with_its_first_answer
                names_are_taken_once
            }
            launching {
                a_campaign_is_launched_once
                a_campaign_without_recipients_is_not_launched
                a_campaign_past_its_end_is_not_launched
                a_campaign_is_not_launched_during_an_upload
                a_campaign_waits_for_its_moment
                another_tenant_sees_nothing
            }
            stopping {
                a_paused_campaign_goes_on_where_it_was
                a_pause_reports_what_is_in_flight
                a_cancelled_campaign_stops_for_good
                a_cancelled_campaign_ends_with_its_last_delivery
                a_draft_is_cancelled_at_once
                a_campaign_completes_when_all_are_final
                a_completed_campaign_cannot_be_paused_resumed_or_cancelled
                an_expired_campaign_expires_who_waits
                what_may_have_been_sent_does_not_expire
                failed_recipients_are_retried_with_a_new_key
                only_the_failures_asked_for_are_retried
                a_refused_account_pauses_its_campaigns
            }
            tenants {
                a_closed_tenant_gives_nothing_to_claim
                closing_a_tenant_reports_what_is_in_flight
                an_opened_tenant_goes_on_where_it_was
                what_would_send_is_refused_for_a_closed_tenant
                a_repeated_call_gets_its_first_answer_from_a_closed_tenant
                what_was_sent_before_a_tenant_closed_is_still_settled
                what_waits_of_a_closed_tenant_still_ends
                a_tenant_stays_closed_since_it_was_and_says_why
                tenants_are_listed_by_name
            }
            operator_limits {
                an_operators_limits_are_kept_in_place_of_the_ones_before
                an_operators_limits_are_there_when_the_ledger_reopens
                a_campaigns_limits_hold_for_the_next_plan_until_it_is_cancelled
            }
            looking {
                progress_adds_up_and_names_reasons
                recipients_are_listed_in_pages_and_by_state
                an_address_is_shown_masked
                evidence_is_sealed_and_by_number
                campaigns_are_listed_newest_first
                a_sending_window_is_kept_as_it_was_given
                the_scheduler_sees_what_is_unfinished
                why_a_campaign_does_not_move_is_said_while_it_runs
            }
            messages {
                a_message_is_ready_when_its_call_returns
                a_person_written_to_twice_is_stored_once
                a_message_repeated_with_its_key_is_sent_once
                the_variables_of_a_message_go_with_its_end
                a_message_behind_a_closed_gate_is_stopped
            }
            interleaving {
                whatever_happens_at_once_every_recipient_is_in_one_state_and_no_closed_gate_is_passed
            }
        }
    };
    (@cases $fixture:expr; $($room:ident { $($case:ident)+ })+) => {$(
        mod $room {
            $(
                #[tokio::test]
                async fn $case() {
                    $crate::suite::$room::$case(&$fixture).await;
                }
            )+
        }
    )+};
}
