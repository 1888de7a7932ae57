//! Text scripts in, transcripts out. `UPDATE_EXPECT=1` rewrites the transcripts; review the difference.
//!
//! A script line is one step; what the machine asks for is printed below it. Checkpoints are synced only when
//! a line says `sync`, so that each scenario shows what waits for the disk. `crash` builds a new machine from
//! what was synced, `crash unsynced` from all that was asked to be kept.

use crate::world::World;

fn check(name: &str) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/scripts");
    let text = std::fs::read_to_string(format!("{directory}/{name}.txt")).unwrap();
    let mut world = World::default();
    let mut transcript = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue; // what was printed the last time
        }
        transcript.push_str(line.trim_end());
        transcript.push('\n');
        let script = line.split('#').next().unwrap_or_default().trim();
        if !script.is_empty() {
            for printed in world.obey(script) {
                transcript.push_str(&format!("  {printed}\n"));
            }
        }
    }
    expect_test::expect_file![format!("{directory}/{name}.txt")].assert_eq(&transcript);
}

#[test]
fn a_task_from_order_to_end() {
    check("a_task_from_order_to_end");
}

#[test]
fn hello_as_known() {
    check("hello_as_known");
}

#[test]
fn pods() {
    check("pods");
}

#[test]
fn pods_after_a_restart() {
    check("pods_after_a_restart");
}

#[test]
fn health() {
    check("health");
}

#[test]
fn checks() {
    check("checks");
}

#[test]
fn completion() {
    check("completion");
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    check("nothing_is_said_before_it_is_durable");
}

#[test]
fn kills() {
    check("kills");
}

#[test]
fn kills_before_the_release() {
    check("kills_before_the_release");
}

#[test]
fn orders_that_start_nothing() {
    check("orders_that_start_nothing");
}

#[test]
fn fences_and_sessions() {
    check("fences_and_sessions");
}

#[test]
fn updates_are_repeated_until_confirmed() {
    check("updates_are_repeated_until_confirmed");
}

#[test]
fn recovery() {
    check("recovery");
}

#[test]
fn a_long_connection_prunes_the_answered() {
    check("a_long_connection_prunes_the_answered");
}

#[test]
fn ends() {
    check("ends");
}

#[test]
fn silence_and_failure() {
    check("silence_and_failure");
}

#[test]
fn executors() {
    check("executors");
}

#[test]
fn executors_share_a_run() {
    check("executors_share_a_run");
}

#[test]
fn executors_after_a_restart() {
    check("executors_after_a_restart");
}

#[test]
fn executors_repeat_what_is_over() {
    check("executors_repeat_what_is_over");
}

#[test]
fn executors_end() {
    check("executors_end");
}

#[test]
fn kills_in_executors() {
    check("kills_in_executors");
}

#[test]
fn groups() {
    check("groups");
}

#[test]
fn groups_after_a_restart() {
    check("groups_after_a_restart");
}

#[test]
fn starting() {
    check("starting");
}

#[test]
fn volumes() {
    check("volumes");
}

/// As many updates wait as may: what is found then is told once there is room.
#[test]
fn health_that_finds_no_room_is_told_later() {
    let mut world = World::default();
    for step in ["begin", "open stream=1", "leader term=1", "sync", "welcome session=1", "sync"] {
        world.obey(step);
    }
    for step in ["run 10 health=COMMAND,1000,500,200,0,2", "sync", "held 10", "sync", "runs 10", "sync"] {
        world.obey(step);
    }
    let probe = |world: &mut World, n: u64, status: u64| {
        world.obey(&format!("at {}", 500 + n * 500));
        world.obey(&format!("found 10 health {status} probe={n}"));
        world.obey("sync")
    };
    for n in 1..64 {
        let told = probe(&mut world, n, n % 2);
        assert!(told.iter().any(|line| line.contains(&format!("1.10.0#{} ", n + 1))), "{n}: {told:?}");
    }
    let told = probe(&mut world, 64, 0);
    assert!(!told.iter().any(|line| line.contains("#65")), "{told:?}");
    for seq in 1..=64 {
        world.obey(&format!("confirm 10 {seq}"));
    }
    let told = probe(&mut world, 65, 0);
    assert!(told.iter().any(|line| line.contains("1.10.0#65 ") && line.ends_with("(healthy)")), "{told:?}");
}
