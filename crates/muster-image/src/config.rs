//! What an image says of the process that runs in it, and what becomes of that when a task says something, too.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The PATH of an image that names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The part of an image's configuration that concerns its process (image-spec, `config.md`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `USER[:GROUP]`, each by name or number. Empty: root.
    #[serde(deserialize_with = "nothing_is_default")]
    pub user: String,
    /// `NAME=VALUE` each.
    #[serde(deserialize_with = "nothing_is_default")]
    pub env: Vec<String>,
    /// The program, and its first arguments.
    #[serde(deserialize_with = "nothing_is_default")]
    pub entrypoint: Vec<String>,
    /// What follows the entry point, or the program itself.
    #[serde(deserialize_with = "nothing_is_default")]
    pub cmd: Vec<String>,
    /// Where it runs; empty where it is not said.
    #[serde(deserialize_with = "nothing_is_default")]
    pub working_dir: String,
}

/// Builders write `null` for what is not there.
fn nothing_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// What a task or an executor says it runs: Mesos' `CommandInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Whether `value` is for a shell.
    pub shell: bool,
    /// The program or the shell's line.
    pub value: Option<String>,
    /// The arguments. Where `value` is a program, the first is what the program is told to be called.
    pub arguments: Vec<String>,
    /// The environment, which wins over the image's.
    pub environment: BTreeMap<String, String>,
    /// The user to run as, which wins over the image's.
    pub user: Option<String>,
}

/// What is run in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The program: a path in the image, or a name that is looked for along PATH.
    pub program: String,
    /// All arguments, beginning with what the program is told to be called.
    pub args: Vec<String>,
    /// The environment, by name.
    pub env: BTreeMap<String, String>,
    /// Where it runs; none where the image does not say.
    pub working_dir: Option<String>,
    /// Who it runs as, as it was written: by name or number, with a group behind a colon. Empty: root.
    pub user: String,
}

/// What runs when a task says this of an image that says that: the table that Mesos documents for its docker runtime.
/// A command for a shell, and a program, put the image's entry point and command out of force; arguments alone stand in
/// the place of the image's command.
///
/// # Errors
/// Nothing says what to run, or something cannot be run. The error names the field.
pub fn process(image: &ImageConfig, command: &Command) -> Result<Process, String> {
    let value = command.value.as_deref().filter(|value| !value.is_empty());
    let (program, args) = match (command.shell, value) {
        (true, None) => return Err("the command has shell = true and no value for the shell to run".into()),
        (true, Some(line)) => ("/bin/sh".into(), ["sh", "-c", line].map(str::to_owned).to_vec()),
        (false, Some(program)) => {
            let mut args = command.arguments.clone();
            if args.is_empty() {
                args.push(program.to_owned());
            }
            (program.to_owned(), args)
        }
        (false, None) => of_the_image(image, &command.arguments)?,
    };
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    // What has no name means nothing.
    env.extend(
        image
            .env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    env.extend(command.environment.clone());
    let working_dir = Some(image.working_dir.clone()).filter(|dir| !dir.is_empty());
    if let Some(dir) = &working_dir
        && !dir.starts_with('/')
    {
        return Err(format!("the image's WorkingDir {dir:?} is not absolute"));
    }
    let user = command.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| image.user.clone());
    let texts = args.iter().chain([&program, &user]).chain(working_dir.as_ref());
    if texts.chain(env.keys()).chain(env.values()).any(|text| text.contains('\0')) {
        return Err(
            "the command, its environment or the image's configuration contains a NUL character".into()
        );
    }
    Ok(Process { program, args, env, working_dir, user })
}

/// The image's entry point with what the task says in the place of the image's command, if it says anything.
fn of_the_image(image: &ImageConfig, arguments: &[String]) -> Result<(String, Vec<String>), String> {
    let mut all = image.entrypoint.clone();
    if all.is_empty() {
        // Without an entry point the first of the image's command is the program.
        let keep = if arguments.is_empty() { image.cmd.len() } else { 1 };
        all.extend(image.cmd.iter().take(keep).cloned());
        if !all.is_empty() {
            all.extend_from_slice(arguments);
        }
    } else if arguments.is_empty() {
        all.extend_from_slice(&image.cmd);
    } else {
        all.extend_from_slice(arguments);
    }
    let program = all.first().cloned().filter(|program| !program.is_empty()).ok_or(
        "nothing says what to run: the command has no value, and the image neither Entrypoint nor Cmd",
    )?;
    Ok((program, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    /// Every field of Mesos' table: rows are what the task says, columns what the image says.
    #[test]
    fn what_runs_is_what_mesos_documents() {
        const ERROR: &[&str] = &[];
        let images: [(&[&str], &[&str]); 4] =
            [(&[], &[]), (&[], &["cmd", "c"]), (&["entry", "e"], &[]), (&["entry", "e"], &["cmd", "c"])];
        type Row<'a> = (bool, Option<&'a str>, &'a [&'a str], [&'a [&'a str]; 4]);
        let table: [Row<'_>; 8] = [
            (
                false,
                None,
                &[],
                [ERROR, &["cmd", "cmd", "c"], &["entry", "entry", "e"], &["entry", "entry", "e", "cmd", "c"]],
            ),
            (
                false,
                None,
                &["a"],
                [ERROR, &["cmd", "cmd", "a"], &["entry", "entry", "e", "a"], &["entry", "entry", "e", "a"]],
            ),
            (false, Some("run"), &[], [&["run", "run"]; 4]),
            (false, Some("run"), &["name", "a"], [&["run", "name", "a"]; 4]),
            (true, None, &[], [ERROR; 4]),
            (true, None, &["a"], [ERROR; 4]),
            (true, Some("echo x"), &[], [&["/bin/sh", "sh", "-c", "echo x"]; 4]),
            (true, Some("echo x"), &["a"], [&["/bin/sh", "sh", "-c", "echo x"]; 4]),
        ];
        for (shell, value, arguments, row) in table {
            for ((entrypoint, cmd), expected) in images.iter().zip(row) {
                let image = ImageConfig {
                    entrypoint: strings(entrypoint),
                    cmd: strings(cmd),
                    ..ImageConfig::default()
                };
                let command = Command {
                    shell,
                    value: value.map(str::to_owned),
                    arguments: strings(arguments),
                    ..Command::default()
                };
                let runs = process(&image, &command);
                let runs = runs.map(|it| [vec![it.program], it.args].concat()).unwrap_or_default();
                assert_eq!(runs, strings(expected), "{command:?} {image:?}");
            }
        }
    }

    #[test]
    fn the_task_wins_over_the_image() {
        let image = ImageConfig {
            user: "app".into(),
            env: strings(&["A=image", "B=image=x", "=none", "nothing"]),
            cmd: strings(&["run"]),
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        };
        let runs = process(&image, &Command::default()).unwrap();
        assert_eq!((runs.user.as_str(), runs.working_dir.as_deref()), ("app", Some("/srv")));
        let environment = BTreeMap::from([("A".to_owned(), "task".to_owned())]);
        let command = Command { environment, user: Some("1000".into()), ..Command::default() };
        let runs = process(&image, &command).unwrap();
        assert_eq!(
            (runs.env["A"].as_str(), runs.env["B"].as_str(), runs.user.as_str()),
            ("task", "image=x", "1000")
        );
        assert_eq!(runs.env["PATH"], PATH);
        assert_eq!(runs.env.len(), 3);
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        let image = |working_dir: &str, cmd: &str| ImageConfig {
            working_dir: working_dir.into(),
            cmd: vec![cmd.into()],
            ..ImageConfig::default()
        };
        for (image, part) in [
            (image("srv", "run"), "WorkingDir \"srv\""),
            (image("/", "a\0b"), "NUL"),
            (image("/", ""), "Cmd"),
        ] {
            let why = process(&image, &Command::default()).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
