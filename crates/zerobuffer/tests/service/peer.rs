//! The lives of child processes.

use crate::scene::{LONG, NAME, descriptors, mappings};
use std::io::Write;
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, EventLoopClient, Frame, Pool, RequestState, Server,
    Service, ServiceConfig, WaitStrategy,
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
            let mut config = ServiceConfig::new()
                .directory(directory)
                .ring(number("ring", 1 << 20))
                .max_clients(number("clients", 64))
                .workers(number("workers", 1));
            if let Some(listener) = property("listener") {
                config = config.listener(listener.parse().expect("a descriptor"));
            }
            if property("locked").is_some() {
                // SAFETY: the call takes an integer.
                let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
                assert_eq!(locked, 0, "{}", std::io::Error::last_os_error());
            }
            let journal = property("journal").map(Journal::open);
            let descriptors = property("descriptors").map(|most| most.parse().expect("a number"));
            serve(config, descriptors, move |frame| {
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
        "event-loop" => run_event_loop(ClientConfig::new().directory(directory)),
        #[cfg(feature = "tokio")]
        "tokio" => crate::tokio_client::run(ClientConfig::new().directory(directory)),
        "crowd" => {
            let count = property("count").expect("a count").parse().expect("a number");
            crowd(count, &ClientConfig::new().directory(directory).wait(WaitStrategy::Park));
        }
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

/// `descriptors`: how many this process may have at the most, from then on.
fn serve(
    config: ServiceConfig,
    descriptors: Option<u64>,
    handler: impl Fn(&mut Frame<'_>) + Send + Sync + 'static,
) {
    let mut service = Service::create(NAME, config).expect("a service starts");
    service.start(handler).expect("threads");
    if let Some(most) = descriptors {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: `limit` can be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    }
    say("ready");
    for command in commands() {
        match command.as_str() {
            "stop" => {
                service.stop().expect("stops");
                say("stopped");
            }
            "clients" => say(&format!("clients {}", service.clients())),
            command => bear(command),
        }
    }
}

/// Has a child that lives on, with or without another program, and says which.
fn bear(how: &str) {
    let child = match how {
        // SAFETY: the child makes calls that are allowed after a fork, and no others.
        "fork" => unsafe {
            let child = libc::fork();
            if child == 0 {
                // Should nobody end it.
                libc::alarm(100);
                loop {
                    libc::pause();
                }
            }
            child
        },
        "exec" => {
            let mut command = std::process::Command::new("sleep");
            let null = std::process::Stdio::null;
            command.arg("100").stdin(null()).stdout(null()).stderr(null());
            command.spawn().expect("a program starts").id().cast_signed()
        }
        how => panic!("no command {how}"),
    };
    say(&format!("child {child}"));
}

/// So many clients, each of which has called once, slept for the response, and does nothing any more; and a
/// child if one is asked for.
fn crowd(count: usize, config: &ClientConfig) {
    let connect = |_| -> Client {
        let mut client = Client::connect_with(NAME, LONG, config.clone()).expect("attaches");
        assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).expect("answered").data()[0], 2);
        client
    };
    let clients: Vec<Client> = (0..count).map(connect).collect();
    say("ready");
    for command in commands() {
        if command == "leave" {
            break;
        }
        bear(&command);
    }
    drop(clients);
    say("left");
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

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("can be read").count()
}

/// An event loop that makes a thousand calls when it is told to, and says how many threads that has started.
fn run_event_loop(config: ClientConfig) {
    let before = threads();
    let client = EventLoopClient::connect_with(NAME, LONG, config).expect("connects");
    say("ready");
    for command in commands() {
        match command.as_str() {
            "call" => {
                let (done, outcomes) = std::sync::mpsc::channel();
                for number in 0..1000_u64 {
                    let done = done.clone();
                    let on_done = move |response| done.send(response).expect("received");
                    client.start_call(&number.to_le_bytes(), LONG, on_done).expect("started");
                }
                let mut left = 1000;
                while left > 0 {
                    crate::event_loop::is_readable(&client, Duration::from_secs(1));
                    client.process();
                    for outcome in outcomes.try_iter() {
                        outcome.expect("a response");
                        left -= 1;
                    }
                }
                say("called");
            }
            "threads" => say(&format!("threads {}", threads() - before)),
            "drop" => break,
            command => panic!("no command {command}"),
        }
    }
    drop(client);
    say(&format!("left {} {}", descriptors("socket:"), mappings()));
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
    say(&format!("left {} {} {}", threads(), descriptors("socket:"), mappings()));
}
