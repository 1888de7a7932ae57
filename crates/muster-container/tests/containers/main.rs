//! One table of what containers must do, for every runtime that this machine has.

#![allow(clippy::unwrap_used)]

mod bench;
mod bundles;

use bench::{Bench, Kinds, each, eventually};
use muster_container::{Base, Bind, Ids, Pids, Rlimit};
use std::{fs, path::Path};

#[test]
fn exit_codes_and_signals_are_the_commands_own() {
    each(|kind| {
        for (script, end) in [("exit 0", "exited 0"), ("exit 7", "exited 7"), ("kill -9 $$", "signaled 9")] {
            let bench = Bench::new(kind);
            let mut run = bench.create(&bench.shell(script));
            assert_eq!(run.ask("start"), "ok");
            assert_eq!(run.ask("wait"), end, "{script}");
            assert_eq!(run.ask("delete"), "ok");
        }
    });
}

#[test]
fn a_command_does_not_run_before_it_is_started() {
    each(|kind| {
        let bench = Bench::new(kind);
        let marker = bench.volume("marker");
        let mut bundle = bench.shell("echo ran > /v/ran");
        bundle.binds.push(Bind { source: marker.clone(), target: "/v".into(), read_only: false });
        let mut run = bench.create(&bundle);
        assert_eq!(run.ask("kill"), "ok");
        assert_eq!(run.ask("wait"), "signaled 9");
        assert_eq!(run.ask("delete"), "ok");
        assert!(!marker.join("ran").exists());
    });
}

#[test]
fn environment_directory_user_and_limits_are_what_was_asked_for() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.shell("echo $A; pwd; id -u; id -g; id -G; ulimit -n; hostname; echo $$");
        bundle.process.env.insert("A".into(), "a b='c'".into());
        bundle.process.cwd = "/srv".into();
        bundle.process.ids = Ids { uid: 1234, gid: 2345, groups: vec![3456] };
        bundle.process.rlimits.push(Rlimit { name: "RLIMIT_NOFILE".into(), soft: 77, hard: 99 });
        bundle.hostname = Some("inside".into());
        assert_eq!(bench.run(&bundle), "exited 0");
        let output = bench.output();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..7], ["a b='c'", "/srv", "1234", "2345", "2345 3456", "77", "inside"], "{output}");
        // Process 1 is the one that reaps.
        assert_ne!(lines[7], "1", "{output}");
    });
}

#[test]
fn a_name_for_itself_is_told_where_the_runtime_can() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.shell("");
        bundle.process.program = "/bin/busybox".into();
        bundle.process.args = ["echo", "called", "echo"].map(str::to_owned).to_vec();
        if kind.is_native() {
            assert_eq!(bench.run(&bundle), "exited 0");
            assert_eq!(bench.output(), "called echo\n");
        } else {
            let why = bench.refused(&bundle);
            assert!(why.contains("native containerizer"), "{why}");
        }
    });
}

#[test]
fn a_program_that_is_not_there_is_told_when_the_container_is_made() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.shell("");
        bundle.process.program = "no-such-program".into();
        bundle.process.args = vec!["no-such-program".into()];
        let why = bench.refused(&bundle);
        assert!(why.contains("no-such-program"), "{why}");
        assert_eq!(bench.left(), Vec::<String>::new());
    });
}

#[test]
fn a_root_that_is_read_only_takes_nothing() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.shell("(echo x > /written) 2>/dev/null && exit 1; echo x > /dev/shm/y");
        bundle.read_only = true;
        assert_eq!(bench.run(&bundle), "exited 0");
        assert!(!bench.root().join("written").exists());
    });
}

#[test]
fn volumes_are_written_to_unless_they_are_read_only() {
    each(|kind| {
        let bench = Bench::new(kind);
        let (rw, ro) = (bench.volume("rw"), bench.volume("ro"));
        fs::write(ro.join("given"), "given").unwrap();
        fs::write(bench.dir().join("file"), "one file").unwrap();
        let script = "cat /a/ro/given /etc/one; echo mine > /a/rw/mine; (echo x > /a/ro/x) 2>/dev/null && exit 1; exit 0";
        let mut bundle = bench.shell(script);
        bundle.binds = vec![
            Bind { source: rw.clone(), target: "/a/rw".into(), read_only: false },
            Bind { source: ro.clone(), target: "/a/ro".into(), read_only: true },
            Bind { source: bench.dir().join("file"), target: "/etc/one".into(), read_only: true },
        ];
        assert_eq!(bench.run(&bundle), "exited 0");
        assert_eq!(bench.output(), "givenone file");
        assert_eq!(fs::read_to_string(rw.join("mine")).unwrap(), "mine\n");
        assert!(!ro.join("x").exists());
    });
}

#[test]
fn devices_are_filled_and_what_is_of_the_machine_is_masked() {
    each(|kind| {
        let bench = Bench::new(kind);
        let script = "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
            for l in fd stdin stdout stderr ptmx; do [ -e /dev/$l ] || [ -L /dev/$l ] || echo no $l; done
            [ -d /dev/pts ] && [ -d /dev/shm ] && [ -d /dev/mqueue ] || echo no directories
            head -c 4 /dev/zero | wc -c
            echo x > /dev/null && (echo x > /proc/sysrq-trigger) 2>/dev/null && echo written
            (echo 1 > /sys/kernel/mm/ksm/run) 2>/dev/null && echo sys
            cat /proc/kcore 2>/dev/null | head -c 1
            mknod /tmp/disk b 8 0 2>/dev/null && echo made; exit 0";
        assert_eq!(bench.run(&bench.shell(script)), "exited 0");
        assert_eq!(bench.output(), "4\n");
    });
}

#[test]
fn processes_are_its_own_unless_all_are_asked_for() {
    each(|kind| {
        let own = format!("[ -d /proc/{} ] && echo seen; exit 0", std::process::id());
        for (pids, init, number, seen) in [
            (Pids::Own, true, None, ""),
            (Pids::Own, false, Some("1\n"), ""),
            (Pids::Host, true, None, "seen\n"),
        ] {
            let bench = Bench::new(kind).init(init);
            let mut bundle = bench.shell(if number.is_some() { "echo $$" } else { &own });
            bundle.pids = pids.clone();
            assert_eq!(bench.run(&bundle), "exited 0");
            assert_eq!(bench.output(), number.unwrap_or(seen), "{pids:?} {init}");
        }
    });
}

#[test]
fn term_reaches_a_command_behind_process_1() {
    each(|kind| {
        // One that has no handler ends; as process 1 it would not.
        let bench = Bench::new(kind);
        let mut run = bench.create(&bench.command(&["sleep", "1000"]));
        assert_eq!(run.ask("start"), "ok");
        bench.runs(&run, "sleep");
        assert_eq!(run.ask("term"), "ok");
        assert_eq!(run.ask("wait"), "signaled 15");
        assert_eq!(run.ask("delete"), "ok");
        let bench = Bench::new(kind);
        let script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done";
        let mut run = bench.create(&bench.shell(script));
        assert_eq!(run.ask("start"), "ok");
        eventually("the trap is set", || bench.output().contains("ready"));
        assert_eq!(run.ask("term"), "ok");
        assert_eq!(run.ask("wait"), "exited 3");
        assert_eq!(run.ask("delete"), "ok");
        assert_eq!(bench.output(), "ready\nasked\n");
    });
}

#[test]
fn process_1_reaps_and_shows_nothing_of_the_machine() {
    each(|kind| {
        let bench = Bench::new(kind);
        // The orphan's parent has ended, so that it is process 1's: it must go, not stay as a zombie.
        let script = "(cd /proc/1/root 2>/dev/null && ls) ; cat /proc/1/exe 2>/dev/null | head -c 1
            (sleep 0 & echo $! > /tmp/orphan) ; orphan=$(cat /tmp/orphan) ; i=0
            while [ -e /proc/$orphan ]; do
                [ $i -lt 1000 ] || exit 1
                sleep 0.01 ; i=$((i+1))
            done";
        assert_eq!(bench.run(&bench.shell(script)), "exited 0");
        assert_eq!(bench.output(), "");
    });
}

#[test]
fn memory_is_limited_and_the_kernel_says_so() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.command(&["tail", "/dev/zero"]);
        bundle.limits.memory_bytes = Some(32 << 20);
        let mut run = bench.create(&bundle);
        assert_eq!(run.ask("start"), "ok");
        assert_eq!(run.ask("wait"), "signaled 9");
        let killed = match bench.group_file("memory", "memory.oom_control") {
            Some(text) => bench::keyed(&text, "oom_kill"),
            None => bench::keyed(&bench.group_file("", "memory.events").unwrap(), "oom_kill"),
        };
        assert!(killed > 0);
        assert_eq!(run.ask("delete"), "ok");
    });
}

#[test]
fn processor_time_is_no_more_than_its_quota() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut bundle = bench.shell("while :; do :; done");
        bundle.limits.cpu_quota_us = Some(20_000);
        bundle.limits.cpu_shares = Some(512);
        let mut run = bench.create(&bundle);
        assert_eq!(run.ask("start"), "ok");
        eventually("it is throttled", || {
            let text = bench.group_file("cpu", "cpu.stat").or_else(|| bench.group_file("", "cpu.stat"));
            bench::keyed(&text.unwrap(), "nr_throttled") >= 3
        });
        if let Some(shares) = bench.group_file("cpu", "cpu.shares") {
            assert_eq!(shares.trim(), "512");
        }
        assert_eq!(run.ask("kill"), "ok");
        assert_eq!(run.ask("wait"), "signaled 9");
        assert_eq!(run.ask("delete"), "ok");
    });
}

#[test]
fn processes_are_no_more_than_allowed() {
    each(|kind| {
        let bench = Bench::new(kind);
        let script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo all";
        let mut bundle = bench.shell(script);
        bundle.limits.pids = Some(16);
        let mut run = bench.create(&bundle);
        assert_eq!(run.ask("start"), "ok");
        let end = run.ask("wait");
        assert!(end != "exited 0" && !bench.output().contains("all"), "{end} {}", bench.output());
        let file =
            |name: &str| bench.group_file("pids", name).or_else(|| bench.group_file("", name)).unwrap();
        let now: u64 = file("pids.current").trim().parse().unwrap();
        assert!((10..=16).contains(&now), "{now} processes at a time");
        assert!(bench::keyed(&file("pids.events"), "max") > 0);
        assert_eq!(run.ask("delete"), "ok");
        assert_eq!(bench.left(), Vec::<String>::new());
    });
}

#[test]
fn another_process_runs_beside_the_command() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut run = bench.create(&bench.command(&["sleep", "1000"]));
        assert_eq!(run.ask("start"), "ok");
        bench.runs(&run, "sleep");
        let mut process = bench
            .shell("grep -e :memory: -e ^0:: /proc/self/cgroup | head -1 | cut -d: -f3; pwd; id -u; exit 5")
            .process;
        process.cwd = "/srv".into();
        process.ids.uid = 1234;
        assert_eq!(run.ask(&format!("exec {}", serde_json::to_string(&process).unwrap())), "exited 5");
        assert_eq!(bench.output(), format!("{}\n/srv\n1234\n", bench.group().display()));
        process.program = "none".into();
        process.args = vec!["none".into()];
        let why = run.ask(&format!("exec {}", serde_json::to_string(&process).unwrap()));
        assert!(why.starts_with("failed") && why.contains("none"), "{why}");
        assert_eq!(run.ask("kill"), "ok");
        assert_eq!(run.ask("wait"), "signaled 9");
        assert_eq!(run.ask("delete"), "ok");
    });
}

#[test]
fn without_an_image_it_sees_the_machines_files_and_its_own_processes() {
    each(|kind| {
        let bench = Bench::new(kind);
        let (volume, seen) = (bench.volume("volume"), bench.volume("seen"));
        let script = format!(
            "echo $(ls /proc | grep -c '^[0-9]'); cat {}/own; echo of-the-task > {}/x",
            seen.display(),
            seen.display()
        );
        fs::write(volume.join("own"), "volume\n").unwrap();
        let mut bundle = bench.shell(&script);
        bundle.base = Base::Host;
        bundle.root = bench.volume("host");
        bundle.process.program = "/bin/sh".into();
        bundle.process.env.insert("PATH".into(), "/usr/bin:/bin".into());
        bundle.process.cwd = "/tmp".into();
        bundle.binds.push(Bind { source: volume.clone(), target: seen.clone(), read_only: false });
        assert_eq!(bench.run(&bundle), "exited 0", "{}", bench.output());
        let output = bench.output();
        let (count, rest) = output.split_once('\n').unwrap();
        assert!(count.parse::<u32>().unwrap() < 10, "{output}");
        assert_eq!(rest, "volume\n");
        assert!(volume.join("x").exists() && !seen.join("x").exists());
    });
}

#[test]
fn what_is_killed_leaves_nothing() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut run = bench.create(&bench.shell(
            "for i in 1 2 3; do setsid sh -c 'sleep 1000 & sleep 1000' & done; echo ready; sleep 1000",
        ));
        assert_eq!(run.ask("start"), "ok");
        eventually("it runs", || bench.processes().len() >= 7 && bench.output().contains("ready"));
        assert_eq!(run.ask("kill"), "ok");
        assert_eq!(run.ask("wait"), "signaled 9");
        assert_eq!(run.ask("delete"), "ok");
        assert_eq!(bench.left(), Vec::<String>::new());
    });
}

#[test]
fn nothing_outlives_who_made_it() {
    each(|kind| {
        let bench = Bench::new(kind);
        let mut run = bench.create(&bench.shell("setsid sleep 1000 & echo ready; sleep 1000"));
        assert_eq!(run.ask("start"), "ok");
        eventually("it runs", || bench.processes().len() >= 2 && bench.output().contains("ready"));
        run.die();
        eventually("its processes end", || bench.processes().is_empty());
        eventually("its groups can be removed", || {
            muster_container::remove_groups(&bench.group()).is_empty()
        });
        assert_eq!(bench.left(), Vec::<String>::new());
    });
}

#[test]
fn what_is_held_does_not_outlive_who_made_it() {
    each(|kind| {
        for init in [true, !kind.is_native()] {
            let bench = Bench::new(kind).init(init);
            let mut run = bench.create(&bench.command(&["true"]));
            let is_gone = |pid: u32| {
                // One that nobody has to reap any more is as good as gone.
                fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
            };
            run.die();
            eventually("all of it ends", || [run.pid, run.pause].into_iter().all(is_gone));
        }
    });
}

/// What a suite like this is worth depends on what it ran with.
#[test]
fn the_runtimes_of_this_machine_are_told() {
    let kinds = Kinds::find();
    for (name, why) in &kinds.missing {
        println!("{name} is skipped: {why}");
    }
    if bench::must_run() {
        for name in ["native", "runc"] {
            assert!(!kinds.missing.contains_key(name), "{name}: {:?}", kinds.missing.get(name));
        }
    }
    assert!(Path::new("/proc/self").exists());
}
