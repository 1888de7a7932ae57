//! Scripts in, transcripts out. `UPDATE_EXPECT=1` writes the transcripts anew; read the difference.

#![allow(clippy::unwrap_used)]

mod script;

use expect_test::expect;
use muster_driver::Config;
use script::{check, check_with, info};

const SUBSCRIBED: &str = "
    0 start
    1 connected
    2 T1 leader m1
    3 T1 subscribed
";

#[test]
fn subscribes_and_is_registered() {
    check(
        SUBSCRIBED,
        expect![[r#"
        0 start
            dial #1 m1
        1 connected
        2 T1 leader m1
            send 1: SUBSCRIBE None suppressed []
        3 T1 subscribed
            Registered { framework_id: F1, master: "m1" }
        wakes at 5003
    "#]],
    );
}

#[test]
fn a_new_leader_on_the_same_stream_keeps_the_id_and_repeats_what_is_unanswered() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 accept o1 t1 t2
            11 kill t9
            12 decline o2
            20 T2 leader m2
            21 T1 outcome 2 launched t1 t2
            22 T2 subscribed
            23 T2 outcome 2 launched t1 !t2
            24 T2 outcome 3 done"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 accept o1 t1 t2
                send 2: ACCEPT [o1] [t1, t2]
            11 kill t9
                send 3: KILL t9
            12 decline o2
                send 0: DECLINE [o2] 1ms
            20 T2 leader m2
                Disconnected
                send 4: SUBSCRIBE Some(F1) suppressed []
            21 T1 outcome 2 launched t1 t2
            22 T2 subscribed
                Reregistered { master: "m2" }
                send 2: ACCEPT [o1] [t1, t2]
                send 3: KILL t9
            23 T2 outcome 2 launched t1 !t2
                update t2 TASK_DROPPED "void" uuid false
            24 T2 outcome 3 done
            wakes at 5024
        "#]],
    );
}

#[test]
fn a_broken_stream_tries_the_named_leader_then_the_others_then_waits() {
    check(
        "0 start
         1 connected
         2 T1 leader m3
         3 T1 subscribed
         10 broken
         11 broken
         12 broken
         200 tick",
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m3
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m3" }
            10 broken
                Disconnected
                dial #2 m3
            11 broken
                dial #3 m2
            12 broken
            200 tick
                dial #4 m1
            wakes at 2200
        "#]],
    );
}

#[test]
fn a_master_that_said_redial_goes_last() {
    check(
        "0 start
         1 connected
         2 T0 redial
         3 connected
         4 T0 redial
         5 connected
         6 T0 redial
         500 tick",
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T0 redial
                hang up #1
                dial #2 m2
            3 connected
            4 T0 redial
                hang up #2
                dial #3 m3
            5 connected
            6 T0 redial
                hang up #3
            500 tick
                dial #4 m1
            wakes at 2500
        "#]],
    );
}

#[test]
fn words_of_older_leaders_and_of_streams_given_up_change_nothing() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 T5 leader m2
            11 T1 subscribed
            12 T5 subscribed
            13 T1 offers
            14 T1 leader m1
            15 T5 offers
            16 broken
            17 T5 offers @1
            18 broken @1"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 T5 leader m2
                Disconnected
                send 2: SUBSCRIBE Some(F1) suppressed []
            11 T1 subscribed
            12 T5 subscribed
                Reregistered { master: "m2" }
            13 T1 offers
            14 T1 leader m1
            15 T5 offers
                Offers([])
            16 broken
                Disconnected
                dial #2 m2
            17 T5 offers @1
            18 broken @1
            wakes at 2016
        "#]],
    );
}

#[test]
fn five_missed_heartbeats_mean_redial() {
    check(
        &format!(
            "{SUBSCRIBED}
            1000 T1 heartbeat
            5999 tick
            6000 tick"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            1000 T1 heartbeat
            5999 tick
            6000 tick
                hang up #1
                Disconnected
                dial #2 m2
            wakes at 8000
        "#]],
    );
}

#[test]
fn dials_and_subscriptions_that_are_not_answered_are_given_up() {
    check(
        "0 start
         2000 tick
         2001 connected
         12001 tick
         12002 connected
         12003 T1 leader m3
         22003 tick",
        expect![[r#"
            0 start
                dial #1 m1
            2000 tick
                hang up #1
                dial #2 m2
            2001 connected
            12001 tick
                hang up #2
                dial #3 m3
            12002 connected
            12003 T1 leader m3
                send 1: SUBSCRIBE None suppressed []
            22003 tick
                hang up #3
            wakes at 22037
        "#]],
    );
}

#[test]
fn busy_and_unknown_are_repeated_later() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 accept o1 t1
            11 T1 outcome 2 busy
            12 tick
            61 tick
            62 T1 outcome 2 unknown
            112 tick
            113 T1 outcome 2 launched t1"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 accept o1 t1
                send 2: ACCEPT [o1] [t1]
            11 T1 outcome 2 busy
            12 tick
            61 tick
                send 2: ACCEPT [o1] [t1]
            62 T1 outcome 2 unknown
            112 tick
                send 2: ACCEPT [o1] [t1]
            113 T1 outcome 2 launched t1
            wakes at 5113
        "#]],
    );
}

#[test]
fn reconciliations_come_two_at_a_time_and_keep_nothing_else_back() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 reconcile t1
            11 reconcile t2
            12 reconcile t3
            13 reconcile t4
            14 accept o1 t5
            15 T1 outcome 2 busy
            16 T1 outcome 3 done
            20 broken
            21 connected
            22 T1 leader m1
            23 T1 subscribed
            24 T1 outcome 2 done
            25 T1 outcome 4 refused no"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 reconcile t1
                send 2: RECONCILE 1
            11 reconcile t2
                send 3: RECONCILE 1
            12 reconcile t3
            13 reconcile t4
            14 accept o1 t5
                send 6: ACCEPT [o1] [t5]
            15 T1 outcome 2 busy
            16 T1 outcome 3 done
                send 4: RECONCILE 1
            20 broken
                Disconnected
                dial #2 m2
            21 connected
            22 T1 leader m1
                send 7: SUBSCRIBE Some(F1) suppressed []
            23 T1 subscribed
                Reregistered { master: "m1" }
                send 2: RECONCILE 1
                send 4: RECONCILE 1
                send 6: ACCEPT [o1] [t5]
            24 T1 outcome 2 done
                send 5: RECONCILE 1
            25 T1 outcome 4 refused no
                not done: RECONCILE: no
            wakes at 5025
        "#]],
    );
}

#[test]
fn a_kill_waits_for_the_launch_of_its_task() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 accept o1 t1
            11 kill t1
            12 T1 outcome 2 busy
            13 broken
            14 connected
            15 T2 leader m2
            16 T2 subscribed
            17 T2 outcome 2 launched t1
            18 T2 outcome 3 done"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 accept o1 t1
                send 2: ACCEPT [o1] [t1]
            11 kill t1
            12 T1 outcome 2 busy
            13 broken
                Disconnected
                dial #2 m2
            14 connected
            15 T2 leader m2
                send 4: SUBSCRIBE Some(F1) suppressed []
            16 T2 subscribed
                Reregistered { master: "m2" }
                send 2: ACCEPT [o1] [t1]
            17 T2 outcome 2 launched t1
                send 3: KILL t1
            18 T2 outcome 3 done
            wakes at 5018
        "#]],
    );
}

#[test]
fn a_refused_accept_gives_the_offers_back() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 accept o1 t1 t2
            11 T1 outcome 2 refused task_infos[0]:bad"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 accept o1 t1 t2
                send 2: ACCEPT [o1] [t1, t2]
            11 T1 outcome 2 refused task_infos[0]:bad
                not done: ACCEPT: task_infos[0]:bad
                update t1 TASK_ERROR "task_infos[0]:bad" uuid false
                update t2 TASK_ERROR "task_infos[0]:bad" uuid false
                send 0: DECLINE [o1] 0ms
            wakes at 5011
        "#]],
    );
}

#[test]
fn updates_are_acknowledged_after_their_callback_until_that_is_answered() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 T1 update t1 7
            11 handled t1 7
            12 broken
            13 connected
            14 T2 leader m2
            15 T2 subscribed
            16 T2 update t1 7
            17 T2 outcome 4 done
            17 T2 outcome 2 done
            18 T2 update t1 7"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 T1 update t1 7
                update t1 TASK_RUNNING "" uuid true
            11 handled t1 7
                send 2: ACKNOWLEDGE t1 7
            12 broken
                Disconnected
                dial #2 m2
            13 connected
            14 T2 leader m2
                send 3: SUBSCRIBE Some(F1) suppressed []
            15 T2 subscribed
                Reregistered { master: "m2" }
                send 2: ACKNOWLEDGE t1 7
            16 T2 update t1 7
            17 T2 outcome 4 done
            17 T2 outcome 2 done
            18 T2 update t1 7
                update t1 TASK_RUNNING "" uuid true
            wakes at 5018
        "#]],
    );
}

#[test]
fn explicit_acknowledgement_leaves_it_to_the_framework() {
    let mut config = Config::new(vec!["m1".into()], info());
    config.auto_acknowledge = false;
    check_with(
        config,
        &format!(
            "{SUBSCRIBED}
            10 T1 update t1 7
            11 handled t1 7"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 T1 update t1 7
                update t1 TASK_RUNNING "" uuid true
            11 handled t1 7
            wakes at 5010
        "#]],
    );
}

#[test]
fn roles_and_needs_hold_across_leaders() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 suppress b
            11 T1 outcome 2 done
            12 request cpus:2
            13 revive a
            20 T2 leader m2
            21 T2 subscribed
            22 T2 outcome 7 busy
            72 tick
            73 revive"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 suppress b
                send 2: SUPPRESS [b]
            11 T1 outcome 2 done
            12 request cpus:2
                send 3: REQUEST [cpus:2]
            13 revive a
                send 4: REVIVE [a]
                send 5: SUPPRESS [b]
            20 T2 leader m2
                Disconnected
                send 6: SUBSCRIBE Some(F1) suppressed [b]
            21 T2 subscribed
                Reregistered { master: "m2" }
                send 7: REVIVE [a]
                send 8: SUPPRESS [b]
                send 9: REQUEST [cpus:2]
            22 T2 outcome 7 busy
            72 tick
                send 10: REVIVE [a]
                send 11: SUPPRESS [b]
            73 revive
                send 12: REVIVE [a, b]
            wakes at 5022
        "#]],
    );
}

#[test]
fn messages_are_sent_at_most_once() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 message
            11 broken
            12 message
            13 connected
            14 T2 leader m2
            15 T2 subscribed"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 message
                send 0: MESSAGE
            11 broken
                Disconnected
                dial #2 m2
            12 message
                not done: MESSAGE: not connected, and messages are sent at most once
            13 connected
            14 T2 leader m2
                send 2: SUBSCRIBE Some(F1) suppressed []
            15 T2 subscribed
                Reregistered { master: "m2" }
            wakes at 5015
        "#]],
    );
}

#[test]
fn a_stop_tears_down_and_waits_for_the_answer_over_a_leader_change() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 stop
            11 accept o1 t1
            12 broken
            13 connected
            14 T2 leader m2
            15 T2 subscribed
            16 T2 offers
            17 T2 outcome 2 done
            18 T2 offers"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 stop
                send 2: TEARDOWN
            11 accept o1 t1
                not done: ACCEPT: the driver is stopping
            12 broken
                dial #2 m2
            13 connected
            14 T2 leader m2
                send 3: SUBSCRIBE Some(F1) suppressed []
            15 T2 subscribed
                send 2: TEARDOWN
            16 T2 offers
            17 T2 outcome 2 done
                hang up #2
                ended None
            18 T2 offers
        "#]],
    );
}

#[test]
fn a_teardown_whose_answer_was_lost_is_known_by_the_refusal() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 stop
            12 broken
            13 connected
            14 T2 leader m2
            15 T2 error Framework has been removed"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 stop
                send 2: TEARDOWN
            12 broken
                dial #2 m2
            13 connected
            14 T2 leader m2
                send 3: SUBSCRIBE Some(F1) suppressed []
            15 T2 error Framework has been removed
                hang up #2
                ended None
        "#]],
    );
}

#[test]
fn a_stop_that_nobody_answers_ends_with_an_error() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 stop
            4000 T1 heartbeat
            8000 T1 heartbeat
            10010 tick"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 stop
                send 2: TEARDOWN
            4000 T1 heartbeat
            8000 T1 heartbeat
            10010 tick
                hang up #1
                ended Some("no master answered in time; the framework may still be running: see `muster framework list`")
        "#]],
    );
}

#[test]
fn leaving_for_another_driver_sees_calls_through_and_tears_nothing_down() {
    check(
        &format!(
            "{SUBSCRIBED}
            10 kill t1
            11 leave
            12 T1 outcome 2 done"
        ),
        expect![[r#"
            0 start
                dial #1 m1
            1 connected
            2 T1 leader m1
                send 1: SUBSCRIBE None suppressed []
            3 T1 subscribed
                Registered { framework_id: F1, master: "m1" }
            10 kill t1
                send 2: KILL t1
            11 leave
            12 T1 outcome 2 done
                hang up #1
                ended None
        "#]],
    );
}

#[test]
fn who_never_subscribed_stops_at_once_and_an_abort_asks_nobody() {
    check(
        "0 start\n1 stop",
        expect![[r#"
        0 start
            dial #1 m1
        1 stop
            hang up #1
            ended None
    "#]],
    );
    check(
        &format!("{SUBSCRIBED}\n10 kill t1\n11 abort"),
        expect![[r#"
        0 start
            dial #1 m1
        1 connected
        2 T1 leader m1
            send 1: SUBSCRIBE None suppressed []
        3 T1 subscribed
            Registered { framework_id: F1, master: "m1" }
        10 kill t1
            send 2: KILL t1
        11 abort
            hang up #1
            ended None
    "#]],
    );
}

#[test]
fn an_error_of_the_master_is_final() {
    check(
        &format!("{SUBSCRIBED}\n10 T1 error removed\n11 tick"),
        expect![[r#"
        0 start
            dial #1 m1
        1 connected
        2 T1 leader m1
            send 1: SUBSCRIBE None suppressed []
        3 T1 subscribed
            Registered { framework_id: F1, master: "m1" }
        10 T1 error removed
            Error("removed")
            hang up #1
            ended Some("removed")
        11 tick
    "#]],
    );
    check(
        "0 start\n1 connected\n2 T1 leader m1\n3 T1 outcome 1 refused principal",
        expect![[r#"
        0 start
            dial #1 m1
        1 connected
        2 T1 leader m1
            send 1: SUBSCRIBE None suppressed []
        3 T1 outcome 1 refused principal
            Error("principal")
            hang up #1
            ended Some("principal")
    "#]],
    );
}

#[test]
fn calls_beyond_the_limit_are_refused() {
    let mut config = Config::new(vec!["m1".into()], info());
    config.calls_max = 1;
    check_with(
        config,
        "0 kill t1
         1 kill t2
         2 accept o1 t3",
        expect![[r#"
            0 kill t1
            1 kill t2
                not done: KILL: 1 calls wait for an answer already
            2 accept o1 t3
                not done: ACCEPT: 1 calls wait for an answer already
                update t3 TASK_DROPPED "1 calls wait for an answer already" uuid false
        "#]],
    );
}
