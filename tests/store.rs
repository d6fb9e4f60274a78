//! The state store: one conformance suite for both kinds, and the bad luck of each.

mod bed;
mod cases;
mod child;
mod format;
mod imports;
mod leases;
mod mute;
mod postgres_server;
mod proxy;
mod sample;
mod sqlite_file;
mod tampering;

/// Runs every case against each kind of store, each time in a fresh one.
macro_rules! conformance {
    ($($file:ident::$case:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let bed = super::bed::Bed::sqlite();
                super::$file::$case(&bed).await;
                bed.remove().await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let name = concat!("store::postgres::", stringify!($case));
                let Some(bed) = super::bed::Bed::postgres(name).await else { return };
                super::$file::$case(&bed).await;
                bed.remove().await;
            })*
        }
        /// No case may be written and then forgotten in the list above.
        #[test]
        fn every_case_is_listed() {
            let listed = [$((stringify!($file), stringify!($case))),*];
            for (file, source) in [
                ("cases", include_str!("store/cases.rs")),
                ("imports", include_str!("store/imports.rs")),
                ("leases", include_str!("store/leases.rs")),
                ("tampering", include_str!("store/tampering.rs")),
            ] {
                let cases = source.lines().filter_map(|line| line.strip_prefix("pub async fn "));
                for case in cases.filter_map(|line| line.split_once('(')).map(|(name, _)| name) {
                    assert!(listed.contains(&(file, case)), "{file}::{case} is not listed");
                }
            }
        }
    };
}

conformance! {
    cases::records_are_numbered_from_one_and_read_back,
    cases::an_append_elsewhere_than_at_the_end_is_refused_whole,
    cases::of_racing_appenders_one_wins_each_version,
    cases::a_journal_begins_with_the_start_of_its_run,
    cases::an_unknown_run_is_said_to_be_unknown,
    cases::pages_join_without_gap_or_overlap,
    cases::runs_are_listed_newest_first_with_their_end,
    cases::progress_is_replaced_and_nothing_depends_on_it,
    cases::a_reopened_store_is_the_same_one,
    cases::records_of_a_mebibyte_and_of_any_text_come_back,
    cases::a_value_that_can_not_be_read_back_is_not_kept,
    cases::time_is_the_stores,
    cases::a_missing_store_is_made_only_on_request,
    cases::many_openers_make_one_store,
    cases::a_newer_or_altered_schema_is_left_alone,
    cases::the_migrations_applied_are_those_of_the_repository,
    cases::a_closed_store_answers_with_an_error,
    cases::an_abandoned_append_harms_nothing,
    imports::a_run_comes_over_whole_and_goes_on,
    imports::what_is_here_is_left_or_gets_what_it_lacks,
    imports::relays_that_had_not_begun_stay_below,
    imports::a_run_goes_there_and_back,
    imports::a_check_names_each_run_that_is_damaged_and_no_other,
    leases::a_lease_is_held_renewed_lapses_and_is_taken,
    leases::a_dead_holder_is_replaced_at_once,
    leases::giving_back_frees_at_once_and_the_token_still_rises,
    leases::appends_need_the_newest_lease,
    leases::of_racing_claimants_one_gets_the_lease,
    leases::every_field_of_a_claimant_comes_back,
    tampering::changed_bytes_show,
    tampering::a_lost_record_shows,
    tampering::a_journal_cut_short_shows,
    tampering::swapped_and_moved_records_show,
    tampering::a_journal_put_back_shows_to_whom_had_seen_more,
    tampering::a_record_of_a_newer_format_is_told_from_damage,
}
