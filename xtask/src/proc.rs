//! Running other programs, with errors that say which one failed and how.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command that must succeed; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// A command of cargo that must succeed without a warning. A flag that turns warnings into errors would make cargo
/// build everything anew, dependencies included; what it prints tells as well.
pub(crate) fn run_without_warnings(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("{said}");
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    if said.lines().any(is_warning) {
        bail!("`{shown}` has warnings");
    }
    Ok(())
}

fn is_warning(line: &str) -> bool {
    line.starts_with("warning:") || line.starts_with("warning[")
}

/// The standard output of a command that must succeed. Its standard error goes where ours goes.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{shown}` printed something that is not text"))
}

/// The trimmed output of a command, if it can be started and succeeds: for questions whose answer may be no.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The program `name` in the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The `cargo` that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo's own variables describe this program, not the one we start.
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR");
        if ours {
            command.env_remove(name);
        }
    }
    command
}

fn show(command: &Command) -> String {
    let words = core::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_whole_command() {
        let error = run(Command::new("false").arg("now"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("`false now` failed"), "{error}");
    }

    #[test]
    fn a_warning_is_a_failure_where_none_may_be() {
        let say = |text: &str| {
            let script = format!("echo '{text}' >&2");
            run_without_warnings(Command::new("sh").args(["-c", &script]))
        };
        assert!(say("warning: unused import").is_err());
        assert!(say("nothing to warn of").is_ok());
    }

    #[test]
    fn a_missing_program_is_an_error_and_no_answer() {
        assert!(run(&mut Command::new("no-such-program-here")).is_err());
        assert_eq!(ask(&mut Command::new("no-such-program-here")), None);
        assert_eq!(find("no-such-program-here"), None);
    }
}
