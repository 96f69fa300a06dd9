//! The lives of child processes.

use crate::scene::{LONG, NAME, descriptors, mappings};
use std::io::Write;
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, Frame, Pool, RequestState, Server, Service,
    ServiceConfig,
};
use zerobuffer_test_support::{commands, say};

/// What makes a process one of these.
pub(crate) const VARIABLE: &str = "ZEROBUFFER_SERVICE_PEER";

/// A request on which the handler stays until it is cancelled.
pub(crate) const STAY: &[u8] = b"stay";

/// Runs the peer of this description: `directory=…`, `role=…` and more.
pub(crate) fn run(description: &str) {
    let property = |name: &str| {
        let mut words = description.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(found, _)| *found == name).map(|(_, value)| value)
    };
    let directory = property("directory").expect("a directory");
    match property("role").expect("a role") {
        "server" => {
            let number =
                |name, usual| property(name).map_or(usual, |text| text.parse().expect("a number"));
            let config = ServiceConfig::new()
                .directory(directory)
                .ring(number("ring", 1 << 20))
                .workers(number("workers", 1));
            let journal = property("journal").map(Journal::open);
            serve(config, move |frame| {
                journal.iter().for_each(|journal| journal.note(frame.data()));
                handler(frame);
            });
        }
        "channel" => serve_channel(property("name").expect("a name")),
        "client" => {
            let config = ClientConfig::new().directory(directory).resend_not_started(true);
            call(config);
        }
        #[cfg(feature = "failpoints")]
        "worker" => crate::steps::peer::serve(description),
        #[cfg(feature = "failpoints")]
        "caller" => crate::steps::peer::call(description),
        "pool" => pool(ClientConfig::new().directory(directory)),
        role => panic!("no role {role}"),
    }
}

/// Each request is a number; the response is the next one.
pub(crate) fn handler(frame: &mut Frame<'_>) {
    if frame.data() == STAY {
        say("staying");
        while !frame.cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        return say("cancelled");
    }
    if let Some(number) = frame.data_mut().first_chunk_mut() {
        *number = (u64::from_le_bytes(*number) + 1).to_le_bytes();
    }
}

/// What was started, for a test that looks for what was started twice: 8 bytes of each request.
struct Journal(std::fs::File);

impl Journal {
    fn open(path: &str) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Self(file.expect("a journal"))
    }

    fn note(&self, request: &[u8]) {
        if let Some(number) = request.first_chunk::<8>() {
            (&self.0).write_all(number).expect("noted");
        }
    }
}

/// A channel of that name.
fn serve_channel(name: &str) {
    let mut server = Server::create(name, BufferConfig::new(0, 1 << 16)).expect("a server starts");
    server.start(handler).expect("threads");
    say("ready");
    for command in commands() {
        assert_eq!(command, "stop");
        server.stop().expect("stops");
        say("stopped");
    }
}

fn serve(config: ServiceConfig, handler: impl Fn(&mut Frame<'_>) + Send + Sync + 'static) {
    let mut service = Service::create(NAME, config).expect("a service starts");
    service.start(handler).expect("threads");
    say("ready");
    for command in commands() {
        match command.as_str() {
            "stop" => {
                service.stop().expect("stops");
                say("stopped");
            }
            "clients" => say(&format!("clients {}", service.clients())),
            command => panic!("no command {command}"),
        }
    }
}

/// Calls until it is told to stop, and says how it went.
fn call(config: ClientConfig) {
    let mut client = Client::connect_with(NAME, LONG, config).expect("attaches");
    say("ready");
    let (sender, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || commands().for_each(|command| sender.send(command).expect("sent")));
    let (mut done, mut in_doubt) = (0_u64, 0_u64);
    loop {
        let called = client.call(&done.to_le_bytes(), LONG);
        let called = called.map(|response| assert_eq!(response.data(), (done + 1).to_le_bytes()));
        match called {
            Ok(()) => {
                done += 1;
                if done == 100 {
                    say("under way");
                }
            }
            Err(Error::PeerDied { request } | Error::PeerClosed { request })
                if request.is_some_and(|request| request.state == RequestState::InDoubt) =>
            {
                in_doubt += 1;
                client.reconnect(LONG).expect("another server");
            }
            Err(error) => panic!("{error}"),
        }
        match stopped.try_recv().as_deref() {
            Ok("stop") => return say(&format!("done {done} in doubt {in_doubt}")),
            Ok(command) => panic!("no command {command}"),
            Err(_) => {}
        }
    }
}

/// A pool that calls when it is told to, and says what is left once it is dropped.
fn pool(config: ClientConfig) {
    let pool = Pool::connect_with(NAME, 2, LONG, config).expect("connects");
    say("ready");
    for command in commands().take_while(|command| command != "drop") {
        assert_eq!(command, "call");
        let (done, outcome) = std::sync::mpsc::channel();
        pool.start_call(&1_u64.to_le_bytes(), LONG, move |response| {
            // Before the response is released.
            done.send(response.map(|response| response.data().to_vec())).expect("received");
        })
        .expect("started");
        let responses = [
            outcome.recv().expect("an outcome").expect("a response"),
            pool.call(&1_u64.to_le_bytes(), LONG).expect("a response").data().to_vec(),
        ];
        assert_eq!(responses, [2_u64.to_le_bytes(); 2]);
        say("called");
    }
    drop(pool);
    let threads = std::fs::read_dir("/proc/self/task").expect("can be read").count();
    say(&format!("left {threads} {} {}", descriptors("socket:"), mappings()));
}
