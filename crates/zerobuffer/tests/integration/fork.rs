//! A process that forks while it serves or calls.

use crate::harness::{LONG, SOON, eventually, fails, scene};
use crate::peer::{Words, say};
use crate::work;
use std::time::Duration;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Closer, ErrorKind, Frame, LostRequest, RequestLayout,
    Server,
};

#[test]
fn handles_refuse_to_work_in_a_forked_child_and_dropping_them_there_touches_nothing() {
    scene(|t| {
        let mut forker = t.peer("role=forker what=handles");
        forker.expect("fine");
    });
}

#[test]
fn the_death_of_a_server_is_seen_although_its_forked_child_lives_on() {
    scene(|t| {
        let mut forker = t.peer("role=forker what=server");
        forker.expect("ready");
        let client = t.client();
        let sequence = client.send_request(&[1]).unwrap();
        let child = forker.ask("fork", "child").parse().unwrap();
        t.adopt(child);
        fails(client.receive_response_for(sequence, Duration::ZERO), ErrorKind::Timeout);
        t.kill(forker);
        let error = fails(client.receive_response(SOON), ErrorKind::PeerDied);
        let state = zerobuffer::RequestState::NotStarted;
        assert_eq!(error.lost_request(), Some(LostRequest { sequence, state }));
        // SAFETY: signal 0 only looks.
        assert_eq!(unsafe { libc::kill(child, 0) }, 0, "the child lives");
        let server = t.server("");
        let mut client = t.client();
        work::check(client.call(&work::bytes(10, 1), LONG).unwrap().data(), 10, 1);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_program_that_a_server_has_started_does_not_keep_it_alive() {
    scene(|t| {
        let mut forker = t.peer("role=forker what=starter");
        forker.expect("ready");
        let client = t.client();
        t.adopt(forker.ask("fork", "child").parse().unwrap());
        t.kill(forker);
        fails(client.receive_response(SOON), ErrorKind::PeerDied);
        t.server("").stop();
    });
}

#[test]
fn the_death_of_a_client_is_seen_although_its_forked_child_lives_on() {
    scene(|t| {
        let server = t.server("");
        let mut forker = t.peer("role=forker what=client");
        forker.expect("ready");
        t.adopt(forker.ask("fork", "child").parse().unwrap());
        forker.kill();
        let mut client = Client::connect(t.name(), SOON).unwrap();
        work::check(client.call(&work::bytes(10, 1), LONG).unwrap().data(), 10, 1);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_fork_at_any_moment_of_creating_and_attaching_inherits_no_lock() {
    scene(|t| {
        let mut forker = t.peer("role=forker what=storm");
        let children = forker.expect("children");
        for child in children.split_whitespace() {
            t.adopt(child.parse().unwrap());
        }
        let channels: usize = forker.expect("channels").parse().unwrap();
        t.kill(forker);
        // All its servers are dead, whatever its children have inherited: they have let go of it as soon
        // as they have run for the first time.
        for n in 0..channels {
            let name = t.other(&format!("{n}x"));
            eventually(&format!("the death of server {n} of {channels}"), || {
                Server::create(&name, BufferConfig::new(0, 64)).is_ok()
            });
        }
    });
}

/// The life of a process that forks.
pub(crate) fn forker(words: &Words) {
    let name: String = words.get("name");
    match words.get::<String>("what").as_str() {
        "handles" => check_handles(&name),
        "server" => {
            let server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
            say("ready");
            fork_on_command();
            drop(server);
        }
        "starter" => {
            let server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
            say("ready");
            for _ in std::io::stdin().lines() {
                // Not waited for: it outlives this process.
                let mut sleep = std::process::Command::new("sleep");
                say(&format!("child {}", sleep.arg("60").spawn().unwrap().id()));
            }
            drop(server);
        }
        "client" => {
            let mut client = Client::connect(&name, LONG).unwrap();
            drop(client.call(&[1, 2, 3], LONG).unwrap());
            say("ready");
            fork_on_command();
            drop(client);
        }
        "storm" => storm(&name),
        what => panic!("{what}"),
    }
}

/// A child of this process that does nothing for a minute.
fn fork_sleeper() -> i32 {
    // SAFETY: the child calls async-signal-safe functions only.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::alarm(60);
            loop {
                libc::pause();
            }
        }
        assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
        pid
    }
}

fn fork_on_command() {
    for command in std::io::stdin().lines().map_while(Result::ok) {
        assert_eq!(command, "fork");
        say(&format!("child {}", fork_sleeper()));
    }
}

fn storm(name: &str) {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stop = &stop;
    let (children, servers) = std::thread::scope(|scope| {
        let maker = scope.spawn(move || {
            let mut servers = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && servers.len() < 1000 {
                let name = format!("{name}-{}x", servers.len());
                let server = Server::create(&name, BufferConfig::new(0, 64)).unwrap();
                let client = Client::connect(&name, LONG).unwrap();
                servers.push((server, client));
            }
            servers
        });
        let children: Vec<_> = (0..800).map(|_| fork_sleeper().to_string()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (children, maker.join().unwrap())
    });
    say(&format!("children {}", children.join(" ")));
    say(&format!("channels {}", servers.len()));
    for _ in std::io::stdin().lines() {}
}

fn check_handles(name: &str) {
    // Three channels: a server with a handler and one without, each with a client; a shared client.
    let names = ["a", "b", "c"].map(|suffix| format!("{name}-{suffix}"));
    let serve = |name: &str| {
        let mut server = Server::create(name, BufferConfig::new(64, 4096)).unwrap();
        server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
        server
    };
    let mut server = serve(&names[0]);
    let mut pulled = Server::create(&names[1], BufferConfig::new(64, 4096)).unwrap();
    let other = serve(&names[2]);
    let mut client = Client::connect(&names[0], LONG).unwrap();
    let sender = Client::connect_with(&names[1], LONG, ClientConfig::new().metadata("m")).unwrap();
    let shared = Client::connect(&names[2], LONG).unwrap().into_shared();

    let held = client.call(&work::bytes(100, 1), LONG).unwrap().into_owned();
    let pending = client.send_request(&work::bytes(100, 2)).unwrap();
    sender.send_request(&work::bytes(100, 3)).unwrap();
    let queued = sender.send_request(&work::bytes(100, 4)).unwrap();
    let mut request = pulled.receive(LONG).unwrap().into_owned();
    let acquire = || shared.acquire_request_buffer(4, RequestLayout::new(), LONG).unwrap();
    let mut open = acquire();
    let before = crate::harness::names(name);
    assert_eq!(before.len(), 15);
    let closers = [client.closer(), shared.closer(), server.closer()];

    // SAFETY: the child is a copy of this thread alone; what it does needs no other thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let wrong = ErrorKind::WrongProcess;
            assert!(held.data().is_empty() && request.data().is_empty());
            assert!(request.data_mut().is_empty());
            fails(client.call(&[1], LONG), wrong);
            fails(client.send_request(&[1]), wrong);
            fails(client.acquire_request_buffer(1), wrong);
            fails(client.receive_response(LONG), wrong);
            fails(client.receive_response_for(pending, LONG), wrong);
            fails(client.reconnect(LONG), wrong);
            assert!(!client.cancel(pending) && !client.is_server_connected());
            fails(shared.call(&[1], LONG), wrong);
            fails(shared.send_request(&[1]), wrong);
            fails(shared.reconnect(LONG), wrong);
            assert!(!shared.cancel(1) && !shared.is_server_connected());
            fails(server.stop(), wrong);
            fails(pulled.receive(LONG).map(drop), wrong);
            fails(pulled.start(|_: &mut Frame<'_>| {}), wrong);
            assert!(!server.is_client_connected());
            // Nor can any of them be used here.
            let own = [client.closer(), shared.closer(), server.closer(), pulled.closer()];
            let closers = [&closers[..], &own].concat();
            assert!(closers.iter().all(Closer::is_closed));
            closers.iter().for_each(Closer::close);
            shared.close();
            assert!(closers.iter().all(Closer::is_closed));
            request.resize(50).unwrap();
            request.respond();
            fails(open.commit(), wrong);
            // And its own channel works.
            drop((held, client, shared, server, pulled, other, sender));
            let name = format!("{}-child", names[0]);
            let mut server = Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
            server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
            let mut client = Client::connect(&name, LONG).unwrap();
            work::check(client.call(&work::bytes(9, 9), LONG).unwrap().data(), 9, 9);
        }));
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place to write to.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child found a fault, see above");

    // Here everything is as before the fork.
    assert!(!closers.iter().any(Closer::is_closed));
    assert_eq!(crate::harness::names(name), before);
    work::check(held.data(), 100, 1);
    drop(held);
    work::check(client.receive_response_for(pending, LONG).unwrap().data(), 100, 2);
    work::edit(request.data_mut());
    request.respond();
    work::check(sender.receive_response(LONG).unwrap().data(), 100, 3);
    let mut request = pulled.receive(LONG).unwrap();
    work::edit(request.data_mut());
    request.respond();
    work::check(sender.receive_response_for(queued, LONG).unwrap().data(), 100, 4);
    open.data_mut().copy_from_slice(&work::bytes(4, 6));
    let sequence = open.commit().unwrap();
    work::check(shared.receive_response_for(sequence, LONG).unwrap().data(), 4, 6);
    work::check(shared.call(&work::bytes(80, 5), LONG).unwrap().data(), 80, 5);
    for name in &names {
        fails(Client::connect(name, Duration::ZERO), ErrorKind::Busy);
        fails(Server::create(name, BufferConfig::new(0, 64)), ErrorKind::AlreadyRunning);
    }
    drop((client, shared, sender));
    server.stop().unwrap();
    pulled.stop().unwrap();
    drop(other);
    assert_eq!(crate::harness::traces(name), [""; 0]);
    say("fine");
}
