//! One channel, its two processes, and what happens to them when.

use crate::board::Board;
use crate::delay::now;
use crate::desk;
use crate::objects;
use crate::process::Process;
use crate::report::Report;
use crate::tell::Message;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longer without a response is a hang.
const HANG: Duration = Duration::from_secs(40);

/// What every lane's channel name begins with.
pub(crate) fn common_name() -> String {
    format!("zbsoak{}", std::process::id())
}

/// What one lane is to do.
#[derive(Debug)]
pub(crate) struct Plan<'p> {
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) kills: u64,
    pub(crate) time: Duration,
    pub(crate) folder: &'p Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Kill(Side),
    KillBoth(Side),
    Stop(Side),
    Pause(Side, Duration),
}

/// Runs one lane to its end.
pub(crate) fn run(plan: &Plan<'_>, report: &Report) {
    if let Err(error) = Lane::new(plan, report).and_then(|mut lane| lane.run()) {
        report.violation(&format!("lane {}: {error:#}", plan.number));
    }
}

struct Lane<'p> {
    plan: &'p Plan<'p>,
    report: &'p Report,
    name: String,
    path: PathBuf,
    board: Board,
    rng: fastrand::Rng,
    server: Option<Process>,
    client: Option<Process>,
    server_life: u64,
    client_life: u64,
    kills: u64,
    start: Instant,
    /// How many responses there were, and since when there have been no more.
    progress: (u64, Instant),
}

impl<'p> Lane<'p> {
    fn new(plan: &'p Plan<'p>, report: &'p Report) -> Result<Self> {
        let name = format!("{}l{}", common_name(), plan.number);
        let path = plan.folder.join(&name);
        Ok(Self {
            board: Board::create(&path)?,
            rng: fastrand::Rng::with_seed(plan.seed),
            plan,
            report,
            name,
            path,
            server: None,
            client: None,
            server_life: 0,
            client_life: 0,
            kills: 0,
            start: Instant::now(),
            progress: (0, Instant::now()),
        })
    }

    fn run(&mut self) -> Result<()> {
        while self.kills < self.plan.kills || self.start.elapsed() < self.plan.time {
            self.start_what_is_missing()?;
            self.sleep();
            self.check();
            let event = self.next_event();
            self.perform(event);
        }
        // A last pair shows that everything still works, and leaves nothing.
        self.start_what_is_missing()?;
        self.await_answers();
        self.stop(Side::Client);
        self.stop(Side::Server);
        let left = objects::names(&self.name);
        if !left.is_empty() {
            self.violation(&format!("left in /dev/shm: {left:?}"));
        }
        Ok(())
    }

    fn violation(&self, text: &str) {
        let Self { server_life, client_life, .. } = self;
        let lane = self.plan.number;
        self.report.violation(&format!(
            "lane {lane}, kill {}, server {server_life}, client {client_life}: {text}",
            self.kills
        ));
    }

    // ---- the plan ----

    /// Every lane has its own bias, so that one side of it grows old.
    fn side(&mut self) -> Side {
        let servers_in_ten = [5, 1, 9][self.plan.number as usize % 3];
        if self.rng.u64(0..10) < servers_in_ten { Side::Server } else { Side::Client }
    }

    fn next_event(&mut self) -> Event {
        let side = self.side();
        match self.rng.u8(0..20) {
            0 => Event::KillBoth(side),
            1 | 2 => Event::Stop(side),
            3 => Event::Pause(side, Duration::from_millis(self.rng.u64(1..60))),
            _ => Event::Kill(side),
        }
    }

    /// The time until something happens: spread over many sizes, so that processes die at their first
    /// steps as well as at work.
    fn sleep(&mut self) {
        let mean = match self.plan.time.is_zero() {
            true => Duration::from_millis(60),
            // Some events kill nobody.
            false => self.plan.time.mul_f64(0.8 / self.plan.kills.max(1) as f64),
        };
        let time = match self.rng.u8(0..4) {
            0 => Duration::from_micros(self.rng.u64(0..5_000)),
            _ => mean.mul_f64(self.rng.f64() * 2.6),
        };
        let end = Instant::now() + time;
        // In steps, so that what is told shows up while it is fresh.
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(Duration::from_millis(500)));
            self.hear();
        }
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Kill(side) => self.kill(side),
            Event::KillBoth(Side::Server) => {
                self.kill(Side::Server);
                self.kill(Side::Client);
            }
            Event::KillBoth(Side::Client) => {
                self.kill(Side::Client);
                self.kill(Side::Server);
            }
            Event::Stop(side) => self.stop(side),
            Event::Pause(side, time) => {
                if let Some(process) = self.process(side) {
                    process.pause(time);
                }
            }
        }
        if self.rng.u8(0..3) == 0 {
            // The survivor stays alone for a while.
            std::thread::sleep(Duration::from_millis(self.rng.u64(0..30)));
        }
    }

    // ---- processes ----

    fn process(&mut self, side: Side) -> &mut Option<Process> {
        match side {
            Side::Server => &mut self.server,
            Side::Client => &mut self.client,
        }
    }

    fn start_what_is_missing(&mut self) -> Result<()> {
        // Drawn in any case, so that the plan does not depend on what happened.
        let server = self.server_arguments();
        let client = self.client_arguments();
        if self.server.is_none() {
            self.server_life += 1;
            self.board.begin_server(self.server_life);
            let life = format!("--life={}", self.server_life);
            self.server = Some(Process::start(&[server, vec![life]].concat())?);
        }
        if self.client.is_none() {
            self.client_life += 1;
            let life = format!("--life={}", self.client_life);
            self.client = Some(Process::start(&[client, vec![life]].concat())?);
        }
        Ok(())
    }

    fn common_arguments(&mut self, role: &str) -> Vec<String> {
        // Who never sleeps leaves nothing for the others of a busy machine: seldom.
        let wait = ["park", "both", "both", "park", "both", "both", "park", "spin"];
        let wait = wait[self.rng.usize(0..wait.len())];
        let board = format!("--board={}", self.path.display());
        vec![role.into(), format!("--channel={}", self.name), board, format!("--wait={wait}")]
    }

    fn server_arguments(&mut self) -> Vec<String> {
        let mut arguments = self.common_arguments("server");
        let payload = 64 * self.rng.usize(64..1500);
        let workers = [1, 1, 2, 3][self.rng.usize(0..4)];
        arguments.extend([format!("--payload={payload}"), format!("--workers={workers}")]);
        arguments
    }

    fn client_arguments(&mut self) -> Vec<String> {
        let mut arguments = self.common_arguments("client");
        arguments.push(format!("--seed={}", self.rng.u64(..)));
        if self.rng.u8(0..4) == 0 {
            arguments.push("--crowd".to_owned());
        }
        if self.rng.bool() {
            arguments.push("--resend".to_owned());
        }
        arguments
    }

    fn kill(&mut self, side: Side) {
        let Some(process) = self.process(side).take() else { return };
        match side {
            Side::Server => self.board.kill_server(self.server_life, now()),
            Side::Client => self.board.end_client(now()),
        }
        let (messages, oddly) = process.kill();
        self.judge(side, messages, oddly);
        self.kills += 1;
        self.report.count("kills", 1);
    }

    fn stop(&mut self, side: Side) {
        let Some(process) = self.process(side).take() else { return };
        match side {
            Side::Server => self.board.stop_server(self.server_life, now()),
            Side::Client => self.board.end_client(now()),
        }
        // A client that has no server tries for as long as one call may take.
        let (messages, oddly) = process.stop(desk::LONG * 2);
        if oddly.is_none() && !messages.contains(&Message::Unchanged) {
            self.violation(&format!("the {side:?} ended without its report: {messages:?}"));
        }
        self.judge(side, messages, oddly);
        self.report.count("clean stops", 1);
    }

    fn judge(&self, side: Side, messages: Vec<Message>, oddly: Option<String>) {
        for message in messages {
            self.note(side, message);
        }
        if let Some(end) = oddly {
            self.violation(&format!("the {side:?} ended unexpectedly: {end}"));
        }
    }

    fn hear(&mut self) {
        for side in [Side::Server, Side::Client] {
            let messages = self.process(side).as_ref().map(Process::messages).unwrap_or_default();
            for message in messages {
                self.note(side, message);
            }
        }
    }

    fn note(&self, side: Side, message: Message) {
        match message {
            Message::Violation(text) => self.violation(&format!("{side:?}: {text}")),
            Message::Ready | Message::Unchanged => {}
            Message::Attached(ns) => self.report.record("attach", ns),
            Message::Death(ns) => self.report.record("death notice", ns),
            Message::Count(what, count) => self.report.count(&what, count),
            Message::Late { by, machine, what } => self.report.late(by, machine, &what),
        }
    }

    // ---- looks from outside ----

    fn check(&mut self) {
        self.hear();
        for side in [Side::Server, Side::Client] {
            if let Some(end) = self.process(side).as_mut().and_then(Process::has_ended) {
                self.process(side).take();
                self.violation(&format!("the {side:?} ended unasked: {end}"));
            }
        }
        if let Some((file, tokens)) = objects::fullest_semaphore(&self.name)
            && tokens > 2
        {
            self.violation(&format!("{tokens} tokens in {file}"));
        }
        let names = objects::names(&self.name);
        if names.len() > 5 {
            self.violation(&format!("more names than a channel has: {names:?}"));
        }
        let answered = self.board.answered();
        if answered != self.progress.0 {
            self.progress = (answered, Instant::now());
        } else if self.progress.1.elapsed() > HANG {
            self.violation(&format!("no answer for {HANG:?}"));
            self.progress.1 = Instant::now();
        }
    }

    fn await_answers(&mut self) {
        let (before, start) = (self.board.answered(), Instant::now());
        while self.board.answered() < before + 20 {
            std::thread::sleep(Duration::from_millis(5));
            self.check();
            if start.elapsed() > HANG {
                return self.violation(&format!("the last pair does not work within {HANG:?}"));
            }
        }
    }
}
