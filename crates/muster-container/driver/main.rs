//! What a supervisor does with a container, a line at a time: for the tests, which have threads and so cannot do it
//! themselves. `pause DIR` is process 1; anything else is the path of a plan.

use muster_container::{Base, Bundle, Container, Io, Kind, Made, Process, bind_root, own_mounts, pause_main};
use rustix::process::{Pid, Signal, WaitOptions, getpid, set_child_subreaper, wait, waitpid};
use serde::Deserialize;
use std::{
    env,
    error::Error,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Deserialize)]
struct Plan {
    kind: Kind,
    dir: PathBuf,
    id: String,
    bundle: Bundle,
    init: bool,
    output: PathBuf,
}

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    if args.first().is_some_and(|it| it == "pause") {
        return pause_main(args);
    }
    match args.first().ok_or_else(|| "no plan".into()).and_then(|plan| drive(Path::new(plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed {error}");
            ExitCode::FAILURE
        }
    }
}

fn drive(plan: &Path) -> Result<(), Failure> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?)?;
    set_child_subreaper(Some(getpid()))?;
    own_mounts()?;
    if plan.bundle.base == Base::Host {
        bind_root(&plan.bundle.root)?;
    }
    let pause = ["pause".to_owned()];
    let Plan { kind, dir, id, bundle, init, output } = &plan;
    let made = Made { kind, dir, id, bundle, pause: &pause, init: *init };
    let container = Container::create(&made, io(output)?)?;
    say(&format!("created {} {}", container.pid(), container.pause_pid().unwrap_or(0)))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer: Result<String, Failure> = match verb {
            "start" => container.start().map(|()| "ok".into()).map_err(Into::into),
            "term" => container.signal(Signal::TERM).map(|()| "ok".into()).map_err(Into::into),
            "kill" => {
                container.kill();
                Ok("ok".into())
            }
            "wait" => ended(container.pid()),
            "exec" => {
                let process: Process = serde_json::from_str(rest)?;
                container.exec(&process, io(output)?).map_err(Into::into).and_then(|it| ended(it.pid))
            }
            "delete" => {
                container.delete()?;
                while wait(WaitOptions::empty()).is_ok() {}
                say("ok")?;
                return Ok(());
            }
            other => Err(format!("what is {other:?}?").into()),
        };
        say(&answer.unwrap_or_else(|error| format!("failed {error}")))?;
    }
    Ok(())
}

fn io(output: &Path) -> Result<Io, Failure> {
    let mut io = Io::null()?;
    io.stdout = File::options().create(true).append(true).open(output)?.into();
    io.stderr = io.stdout.try_clone()?;
    Ok(io)
}

fn ended(pid: u32) -> Result<String, Failure> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no pid")?;
    let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.ok_or("nothing to wait for")?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited {code}"),
        (_, Some(signal)) => format!("signaled {signal}"),
        _ => format!("{status:?}"),
    })
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.replace('\n', " "))?;
    out.flush()
}
