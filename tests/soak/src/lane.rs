//! One channel with its two processes, or one service with its six, and what happens to them when.

use crate::board::{Board, CLIENTS};
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

/// What every lane's name begins with.
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
    /// A service, with several processes on each side.
    pub(crate) is_service: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// One of the lane's processes: its side, and its place there.
type Which = (Side, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Kill(Which),
    /// This one, and then the other side's; of a service all that serve.
    KillBoth(Which),
    Stop(Which),
    Pause(Which, Duration),
}

/// The place of a process, and how many have had it.
#[derive(Debug, Default)]
struct Place {
    life: u64,
    process: Option<Process>,
}

fn places(count: usize) -> Vec<Place> {
    std::iter::repeat_with(Place::default).take(count).collect()
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
    servers: Vec<Place>,
    clients: Vec<Place>,
    /// The number of the latest server.
    server_life: u64,
    kills: u64,
    start: Instant,
    /// How many responses there were, and since when there have been no more.
    progress: (u64, Instant),
}

impl<'p> Lane<'p> {
    fn new(plan: &'p Plan<'p>, report: &'p Report) -> Result<Self> {
        let name = format!("{}l{}", common_name(), plan.number);
        let path = plan.folder.join(&name);
        let (servers, clients) = if plan.is_service { (2, CLIENTS) } else { (1, 1) };
        Ok(Self {
            board: Board::create(&path)?,
            rng: fastrand::Rng::with_seed(plan.seed),
            plan,
            report,
            name,
            path,
            servers: places(servers),
            clients: places(clients),
            server_life: 0,
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
        for which in self.all(Side::Client).into_iter().chain(self.all(Side::Server)) {
            self.stop(which);
        }
        let mut left = objects::names(&self.name);
        left.extend(objects::sockets(&self.directory(), &self.name));
        if !left.is_empty() {
            self.violation(&format!("left behind: {left:?}"));
        }
        Ok(())
    }

    /// The runtime directory of a service.
    fn directory(&self) -> PathBuf {
        self.plan.folder.join("run")
    }

    fn violation(&self, text: &str) {
        let lives = |places: &[Place]| places.iter().map(|place| place.life).collect::<Vec<_>>();
        let (servers, clients) = (lives(&self.servers), lives(&self.clients));
        let lane = self.plan.number;
        self.report.violation(&format!(
            "lane {lane}, kill {}, servers {servers:?}, clients {clients:?}: {text}",
            self.kills
        ));
    }

    // ---- the plan ----

    /// Every lane has its own bias, so that one side of it grows old.
    fn which(&mut self) -> Which {
        let servers_in_ten = [5, 1, 9][self.plan.number as usize % 3];
        let is_server = self.rng.u64(0..10) < servers_in_ten;
        self.any(if is_server { Side::Server } else { Side::Client })
    }

    fn any(&mut self, side: Side) -> Which {
        let count = self.all(side).len();
        (side, self.rng.usize(0..count))
    }

    fn all(&self, side: Side) -> Vec<Which> {
        let count = match side {
            Side::Server => self.servers.len(),
            Side::Client => self.clients.len(),
        };
        (0..count).map(|place| (side, place)).collect()
    }

    fn next_event(&mut self) -> Event {
        let which = self.which();
        match self.rng.u8(0..20) {
            0 => Event::KillBoth(which),
            1 | 2 => Event::Stop(which),
            3 => Event::Pause(which, Duration::from_millis(self.rng.u64(1..60))),
            _ => Event::Kill(which),
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
            Event::Kill(which) => self.kill(which),
            Event::KillBoth((Side::Server, _)) => {
                self.all(Side::Server).into_iter().for_each(|which| self.kill(which));
                let client = self.any(Side::Client);
                self.kill(client);
            }
            Event::KillBoth(client) => {
                self.kill(client);
                self.all(Side::Server).into_iter().for_each(|which| self.kill(which));
            }
            Event::Stop(which) => self.stop(which),
            Event::Pause(which, time) => {
                if let Some(process) = self.process(which) {
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

    fn place(&mut self, (side, place): Which) -> &mut Place {
        match side {
            Side::Server => &mut self.servers[place],
            Side::Client => &mut self.clients[place],
        }
    }

    fn process(&mut self, which: Which) -> &mut Option<Process> {
        &mut self.place(which).process
    }

    fn start_what_is_missing(&mut self) -> Result<()> {
        for which in self.all(Side::Server).into_iter().chain(self.all(Side::Client)) {
            self.start(which)?;
        }
        Ok(())
    }

    fn start(&mut self, which: Which) -> Result<()> {
        // Drawn in any case, so that the plan does not depend on what happened.
        let mut arguments = match which.0 {
            Side::Server => self.server_arguments(),
            Side::Client => self.client_arguments(),
        };
        if self.process(which).is_some() {
            return Ok(());
        }
        let life = match which {
            (Side::Server, _) => {
                self.server_life += 1;
                self.board.begin_server(self.server_life, now());
                self.server_life
            }
            // No two clients that are there at the same time have the same part of the journal.
            (Side::Client, place) => match self.place(which).life {
                0 => place as u64 + 1,
                life => life + self.clients.len() as u64,
            },
        };
        arguments.push(format!("--life={life}"));
        *self.place(which) = Place { life, process: Some(Process::start(&arguments)?) };
        Ok(())
    }

    fn common_arguments(&mut self, role: &str) -> Vec<String> {
        // Who never sleeps leaves nothing for the others of a busy machine: seldom.
        let wait = ["park", "both", "both", "park", "both", "both", "park", "spin"];
        let wait = wait[self.rng.usize(0..wait.len())];
        let board = format!("--board={}", self.path.display());
        let mut arguments =
            vec![role.into(), format!("--name={}", self.name), board, format!("--wait={wait}")];
        if self.plan.is_service {
            arguments.push(format!("--service={}", self.directory().display()));
        }
        arguments
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

    fn kill(&mut self, which: Which) {
        let Place { life, process } = self.place(which);
        let (life, Some(process)) = (*life, process.take()) else { return };
        match which.0 {
            Side::Server => self.board.kill_server(life, now()),
            Side::Client => self.board.end_client(now()),
        }
        let (messages, oddly) = process.kill();
        self.judge(which.0, messages, oddly);
        self.kills += 1;
        self.report.count("kills", 1);
    }

    fn stop(&mut self, which: Which) {
        let side = which.0;
        let Place { life, process } = self.place(which);
        let (life, Some(process)) = (*life, process.take()) else { return };
        match side {
            Side::Server => self.board.stop_server(life, now()),
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
        for which in self.all(Side::Server).into_iter().chain(self.all(Side::Client)) {
            let messages = self.process(which).as_ref().map(Process::messages).unwrap_or_default();
            for message in messages {
                self.note(which.0, message);
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
        for which in self.all(Side::Server).into_iter().chain(self.all(Side::Client)) {
            if let Some(end) = self.process(which).as_mut().and_then(Process::has_ended) {
                self.process(which).take();
                self.violation(&format!("the {:?} ended unasked: {end}", which.0));
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
