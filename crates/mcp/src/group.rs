//! The process group of a program: the program, and what it has started.
//!
//! Many servers are started by another program (`npx`, `uvx`, a script), which does not always take them along when it
//! is ended. Only Unix has such groups.

use std::process::Stdio;
use std::time::Duration;

use rmcp::transport::TokioChildProcess;
use tokio::process::Command;

/// The shell's `kill` is the one way to a group that needs neither `unsafe` nor another library.
const SHELL: &str = "/bin/sh";
/// Far longer than the shell takes.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A group, by the process that leads it.
#[derive(Debug)]
pub(crate) struct Group(u32);

impl Group {
    /// Lets a program that is yet to be started lead a group of its own. Ctrl-C in a terminal goes to all processes of
    /// the group in front, but is meant for an answer, not for the servers.
    pub(crate) fn lead(command: &mut Command) {
        #[cfg(unix)]
        command.process_group(0);
        #[cfg(not(unix))]
        let _ = command;
    }

    /// The group that a running program leads.
    pub(crate) fn of(process: &TokioChildProcess) -> Option<Group> {
        process.id().filter(|_| cfg!(unix)).map(Group)
    }

    /// Kills what is left of it. Its number may be somebody else's some time after the program has ended, so this is
    /// for one that ran a moment ago.
    pub(crate) async fn kill(&self) {
        let mut shell = Command::new(SHELL);
        shell.args(["-c", &format!("kill -KILL -{}", self.0)]).kill_on_drop(true);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // An error says that nothing is left.
        let _ = tokio::time::timeout(KILL_TIMEOUT, shell.status()).await;
    }
}
