//! Weather: each server, link, clock and disk broken for real under the real binaries, while users'
//! events keep coming. Whatever it was, the end is the same: every event that was answered 2xx is
//! in the ledger, the table is right, nothing is left over, and readiness told the truth meanwhile.
//!
//! cargo runs test binaries one after the other, so this one has the servers to itself. Its tests
//! mostly wait, so many run at a time; those that break a server for all take it alone
//! ([`site::alone`]), and come last.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers fail the test"
)]

#[expect(dead_code, reason = "shared with tests/e2e, which needs other parts")]
#[path = "../e2e/harness.rs"]
mod harness;

mod audit;
mod load;
mod site;
mod watch;

mod both;
mod broker;
mod clock;
mod database;
mod disk;
mod pgbouncer;
mod stop;

use std::process::ExitCode;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use libtest_mimic::{Arguments, Trial};

/// Tests at a time: three processes each, mostly idle.
const AT_A_TIME: usize = 8;

type Test = fn() -> LocalBoxFuture<'static, ()>;

/// Tests by their paths, in the order in which they are started.
macro_rules! tests {
    ($($module:ident::$test:ident),* $(,)?) => {
        [$((
            concat!(stringify!($module), "::", stringify!($test)),
            (|| $module::$test().boxed_local()) as Test,
        )),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let tests = tests![
        // It has the servers alone for its first seconds.
        broker::a_batch_held_beyond_the_consumer_timeout_is_applied_once,
        broker::a_broker_away_for_minutes_costs_no_event,
        database::a_database_that_answers_slowly_burns_no_delivery,
        broker::a_connection_that_goes_silent_is_left_within_two_heartbeats,
        database::a_row_that_somebody_holds_delays_its_user_and_nobody_else,
        database::a_database_out_of_connections_is_waited_for,
        disk::a_full_disk_is_a_503_until_there_is_room_and_loses_nothing,
        stop::up_stops_in_any_weather_and_while_it_migrates_or_declares,
        stop::a_worker_stops_in_mid_batch_and_with_either_server_away,
        pgbouncer::a_worker_behind_pgbouncer_needs_no_session_and_survives_its_restart,
        pgbouncer::up_behind_pgbouncer_migrates_and_applies_on_one_connection,
        clock::a_clock_that_jumps_breaks_no_embedded_delay,
        clock::a_clock_that_jumps_refuses_signatures_until_it_is_right_and_orders_nothing,
        database::sessions_killed_again_and_again_cost_no_event,
        stop::an_ingester_stops_in_mid_head_in_mid_body_and_before_a_confirm,
        broker::a_queue_deleted_and_set_up_again_is_consumed_again,
        both::kill_9_of_the_embedded_process_under_load_costs_no_event,
        disk::a_second_process_on_the_same_file_is_refused_and_does_not_disturb,
        // Each breaks another server, so these two go together.
        broker::a_broker_restarted_and_killed_under_load_costs_no_event,
        database::a_database_restarted_and_killed_under_load_costs_no_event,
        broker::under_a_broker_alarm_failed_events_wait_others_are_applied_and_workers_stop,
        both::both_servers_gone_and_back_in_either_order_cost_no_event,
        both::kill_9_of_everything_at_the_same_moment_costs_no_event,
    ];
    let trials = tests.map(|(name, test)| {
        let handle = runtime.handle().clone();
        Trial::test(name, move || {
            handle.block_on(test());
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
