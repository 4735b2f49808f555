//! An engine as a process: `dispatch serve`, which can be killed.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{program, wait};

/// How long an engine may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running engine; killed with this value.
#[derive(Debug)]
pub struct EngineProcess {
    child: Child,
    listen: SocketAddr,
}

impl EngineProcess {
    /// Starts one over a settings file. Its log goes to `log`, with everything in it; without one there is none, for
    /// what an engine says that is killed all the time is no news.
    #[must_use]
    pub fn start(settings: &Path, log: Option<File>) -> Self {
        Self::start_with(settings, log, &[], &[])
    }

    /// The same with more arguments to `serve`, and with variables over the settings file.
    #[must_use]
    pub fn start_with(settings: &Path, log: Option<File>, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let listen = free_address();
        let (level, stderr) = match log {
            Some(log) => ("trace", Stdio::from(log)),
            None => ("off", Stdio::inherit()),
        };
        let child = Command::new(program::dispatch())
            .args(["serve", "--listen", &listen.to_string(), "--config"])
            .arg(settings)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("DISPATCH_LOG", level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the engine can be started");
        Self { child, listen }
    }

    /// Starts one of several, with these roles and other settings by their variables. What it has to say goes to the
    /// end of `log`.
    #[must_use]
    pub fn start_as(settings: &Path, roles: &str, variables: &[(String, String)], log: File) -> Self {
        let listen = free_address();
        let child = Command::new(program::dispatch())
            .args(["serve", "--roles", roles, "--listen", &listen.to_string(), "--config"])
            .arg(settings)
            .envs(variables.iter().cloned())
            .env("DISPATCH_LOG", "info,dispatch_engine=debug,dispatch_workers=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the engine can be started");
        Self { child, listen }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The address of a path of its API.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        wait::until("the engine is ready", START_WITHIN, async || {
            let answer = reqwest::get(self.url("/readyz")).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// SIGKILL: it ends where it is.
    pub fn kill(mut self) {
        self.child.kill().expect("the engine can be killed");
        self.child.wait().expect("the engine has ended");
    }

    /// SIGTERM: it finishes what it holds.
    #[must_use]
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("the engine has ended")
    }

    /// SIGSTOP: it stands still where it is, its connections open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends it a signal, such as `STOP`. One that has ended does not mind.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("`kill` is there").success(), "a child that was not waited for takes signals");
    }

    /// How it ended, once it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Waits until it has ended of itself.
    pub async fn ended(mut self, what: &str, within: Duration) -> ExitStatus {
        wait::until(what, within, async || self.child.try_wait().expect("the engine can be waited for")).await
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that nobody listens on.
#[must_use]
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has free ports");
    listener.local_addr().expect("a listener has an address")
}
