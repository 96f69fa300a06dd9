//! One server with one client on one kind of channel: all cases, one after the other.

use crate::process::Process;
use crate::{Channel, Peer, Plan, cases, traces};
use anyhow::{Context, Result, bail};

/// Of servers: room for two of the largest requests, since version 1 promises to place what fills up
/// to half of the ring.
const PAYLOAD: &str = "16777216";
const METADATA: &str = "4096";
/// Clients of a service at the same time.
const AT_ONCE: usize = 3;

pub(crate) struct Pair<'p> {
    plan: &'p Plan,
    channel: Channel,
    server_peer: &'p Peer,
    client_peer: &'p Peer,
    name: String,
    /// With its number of workers. The next case takes it as it is if it has that many.
    server: Option<(u32, Process)>,
}

impl<'p> Pair<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        channel: Channel,
        server_peer: &'p Peer,
        client_peer: &'p Peer,
        name: String,
    ) -> Self {
        Self { plan, channel, server_peer, client_peer, name, server: None }
    }

    /// Runs the cases that are wanted.
    pub(crate) fn run(mut self) -> Vec<(&'static str, Result<()>)> {
        let mut outcomes = Vec::new();
        for case in cases::names(self.channel).filter(|case| self.plan.wants(case)) {
            let outcome = self.run_case(case).and_then(|()| self.check_server());
            if outcome.is_err() {
                // The next case gets a server that knows nothing of this one.
                self.server = None;
            }
            outcomes.push((case, outcome));
        }
        if !self.plan.wants(cases::LEFTOVERS) {
            // Nobody looks, but nothing is to stay behind.
            self.server = None;
            if let Err(error) = traces::sweep(&self.name, self.channel) {
                println!("what {} has left cannot be removed: {error}", self.name);
            }
        }
        outcomes
    }

    fn run_case(&mut self, case: &str) -> Result<()> {
        if let Some((_, size)) = cases::ROUNDTRIPS.iter().find(|(name, _)| *name == case) {
            return self
                .simple(1, &["roundtrips", &size.to_string(), &self.plan.count.to_string()]);
        }
        match case {
            cases::FAILURE => self.simple(1, &["failure"]),
            cases::METADATA => self.simple(1, &["metadata", &self.server_text()]),
            cases::OUT_OF_ORDER => self.simple(2, &["out-of-order"]),
            cases::AT_ONCE => self.at_once(),
            cases::CLIENT_KILLED => self.client_killed(),
            cases::RESTART => self.restart(),
            cases::SERVER_KILLED => self.server_killed(),
            cases::LEFTOVERS => self.leftovers(),
            _ => bail!("the driver has no such case"),
        }
    }

    /// A case that is the client's alone.
    fn simple(&mut self, workers: u32, case: &[&str]) -> Result<()> {
        self.serve(workers)?;
        self.client(case)?.finish().map_err(|error| self.with_server(error))
    }

    /// Each has memory of its own, and the answers to its own requests.
    fn at_once(&mut self) -> Result<()> {
        self.serve(self.late_workers())?;
        let case = ["roundtrips", "65536", &self.plan.count.to_string()];
        let clients: Result<Vec<_>> = (0..AT_ONCE).map(|_| self.client(&case)).collect();
        for mut client in clients? {
            client.finish().map_err(|error| self.with_server(error))?;
        }
        Ok(())
    }

    fn client_killed(&mut self) -> Result<()> {
        self.serve(self.late_workers())?;
        let mut client = self.client(&["hold"])?;
        client.expect("sent")?;
        client.kill_alive()?;
        let next = self.client(&["roundtrips", "33", "1"])?.finish();
        next.context("the next client").map_err(|error| self.with_server(error))
    }

    fn restart(&mut self) -> Result<()> {
        let workers = self.late_workers();
        self.serve(workers)?;
        let mut client = self.client(&["restart"])?;
        client.expect("ready")?;
        self.stop_beside_client()?;
        self.serve(workers)?;
        client.finish().map_err(|error| self.with_server(error))
    }

    fn server_killed(&mut self) -> Result<()> {
        self.serve(self.late_workers())?;
        let mut client = self.client(&["killed"])?;
        if let Some((_, mut server)) = self.server.take() {
            server.expect("hanging")?;
            server.kill_alive()?;
        }
        client.finish()
    }

    fn leftovers(&mut self) -> Result<()> {
        let stopped = self.stop();
        traces::sweep(&self.name, self.channel)?;
        let names = traces::check_names(&self.name);
        stopped.and(traces::check_processes(&self.name)).and(names)
    }

    /// What follows the out-of-order case can go on with its server.
    fn late_workers(&self) -> u32 {
        match self.channel {
            Channel::InPlace | Channel::Service => 2,
            Channel::TwoBuffers => 1,
        }
    }

    fn server_text(&self) -> String {
        format!("served by {}, 1920 x 1080", self.server_peer.name)
    }

    /// Makes sure that there is a server with that many workers.
    fn serve(&mut self, workers: u32) -> Result<()> {
        if self.server.as_ref().is_some_and(|(has, _)| *has == workers) {
            return Ok(());
        }
        self.stop()?;
        let (count, text) = (workers.to_string(), self.server_text());
        let mut options = vec!["--payload", PAYLOAD, "--metadata", METADATA];
        if self.channel != Channel::TwoBuffers {
            options.extend(["--workers", &count, "--server-metadata", &text]);
        }
        let mut server = self.start("server", self.server_peer, &options)?;
        server.expect("ready")?;
        self.server = Some((workers, server));
        Ok(())
    }

    /// Stops the server in order, if there is one, after it has let its clients go.
    fn stop(&mut self) -> Result<()> {
        if let Some((_, server)) = &self.server {
            traces::check_let_go(server.pid(), &self.name)?;
        }
        self.stop_at_once()
    }

    /// The same while it has a client. A service's segments have no name, also while they are in use.
    fn stop_beside_client(&mut self) -> Result<()> {
        if self.channel == Channel::Service { self.stop_at_once() } else { self.stop() }
    }

    fn stop_at_once(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), |(_, mut server)| server.stop())
    }

    /// Clients come and go, the server stays.
    fn check_server(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), |(_, server)| server.check_running())
    }

    fn client(&self, case: &[&str]) -> Result<Process> {
        let text = format!("called by {}", self.client_peer.name);
        let mut arguments = Vec::new();
        if self.channel != Channel::TwoBuffers {
            arguments.extend(["--client-metadata", &text]);
        }
        arguments.extend(case);
        self.start("client", self.client_peer, &arguments)
    }

    fn start(&self, role: &str, peer: &Peer, more: &[&str]) -> Result<Process> {
        let first = [role, &self.name, "--kind", self.channel.name()];
        let arguments: Vec<String> =
            first.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        let what = format!("{role} in {}", peer.name);
        Process::start(what, &peer.command, &arguments, &self.name, self.plan.limit)
    }

    /// What a client complains of may be explained by what its server has said.
    fn with_server(&self, error: anyhow::Error) -> anyhow::Error {
        match &self.server {
            Some((_, server)) => error.context(server.transcript()),
            None => error,
        }
    }
}
