//! The lives of child processes.

use crate::scene::{LONG, NAME};
use std::time::Duration;
use zerobuffer::{Client, ClientConfig, Error, Frame, RequestState, Service, ServiceConfig};
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
            serve(config);
        }
        "client" => {
            let config = ClientConfig::new().directory(directory).resend_not_started(true);
            call(config);
        }
        #[cfg(feature = "failpoints")]
        "worker" => crate::steps::peer::serve(description),
        #[cfg(feature = "failpoints")]
        "caller" => crate::steps::peer::call(description),
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

fn serve(config: ServiceConfig) {
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
