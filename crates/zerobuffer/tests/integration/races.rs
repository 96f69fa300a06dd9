//! Several servers, several clients, one name.

use crate::harness::{LONG, Peer, SOON, fails, names, scene};
use crate::peer::{self, Words, say};
use crate::work::{self, Rng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zerobuffer::{BufferConfig, Client, Error, ErrorKind, Frame, Server};

/// A server that is created and dropped on command, at an agreed time.
pub(crate) fn racer(words: &Words) {
    let mut server = None;
    say("ready");
    for command in std::io::stdin().lines().map_while(Result::ok) {
        if let Some(at) = Words::new(&command).find::<u64>("at") {
            while now() < at {
                std::hint::spin_loop();
            }
            let name: String = words.get("name");
            match Server::create(&name, peer::server_config(words)) {
                Ok(mut created) => {
                    created.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
                    server = Some(created);
                    say("won");
                }
                Err(error) => say(&format!("{:?} {error}", error.kind())),
            }
        } else {
            drop(server.take());
            say("dropped");
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

#[test]
fn of_eight_servers_that_race_for_a_name_exactly_one_wins_and_keeps_its_objects() {
    scene(|t| {
        let mut racers: Vec<Peer> = (0..8).map(|_| t.peer("role=racer payload=4096")).collect();
        racers.iter_mut().for_each(|racer| drop(racer.expect("ready")));
        for round in 0..100 * work::factor() {
            if round % 2 == 1 {
                leave_behind(t.name());
            }
            let at = now() + 1000;
            racers.iter_mut().for_each(|racer| racer.say(&format!("create at={at}")));
            let said: Vec<_> = racers.iter_mut().map(Peer::hear).collect();
            let winners = said.iter().filter(|said| *said == "won").count();
            let losers = said.iter().filter(|said| said.starts_with("AlreadyRunning")).count();
            assert_eq!((winners, losers), (1, 7), "round {round}: {said:?}");
            assert_eq!(names(t.name()).len(), 5, "round {round}");
            let mut client = Client::connect(t.name(), LONG).unwrap();
            work::check(client.call(&work::bytes(99, 1), LONG).unwrap().data(), 99, 1);
            drop(client);
            racers.iter_mut().for_each(|racer| drop(racer.ask("drop", "dropped")));
            assert_eq!(names(t.name()), [""; 0], "round {round}");
        }
    });
}

/// The objects of a server that was killed.
fn leave_behind(name: &str) {
    let mut segment = vec![0; 8192];
    segment[0] = 88;
    segment[4] = 2;
    std::fs::write(format!("/dev/shm/{name}_duplex"), segment).unwrap();
    let semaphores = ["request-ready", "response-ready", "response-consumed", "space-available"];
    for semaphore in semaphores {
        let file = format!("/dev/shm/sem.sem-{semaphore}-{name}");
        std::fs::write(file, [7, 0, 0, 0, 9, 0, 0, 0, 0x80].repeat(4).split_at(32).0).unwrap();
    }
}

#[test]
fn of_two_clients_that_race_one_is_served_and_one_finds_the_channel_busy() {
    scene(|t| {
        let server = t.server("");
        let mut clients: Vec<Peer> = (0..2).map(|_| t.peer("role=client")).collect();
        clients.iter_mut().for_each(|client| drop(client.expect("ready")));
        for seed in 0..30 {
            clients.iter_mut().for_each(|client| client.say("connect ms=0"));
            let said: Vec<_> = clients.iter_mut().map(Peer::hear).collect();
            let attached = said.iter().position(|said| said.starts_with("ok"));
            let attached = attached.unwrap_or_else(|| panic!("{said:?}"));
            assert!(said[1 - attached].starts_with("err Busy"), "{said:?}");
            let other = 1 - attached;
            // Sometimes the first one leaves no trace, sometimes it does.
            if seed % 2 == 0 {
                clients[attached].ask(&format!("call len=200 seed={seed}"), "ok");
            }
            clients[other].ask("connect ms=30", "err Busy");
            clients[attached].ask("close", "ok");
            clients[other].ask("connect ms=20000", "ok");
            clients[other].ask(&format!("call len=200 seed={seed}"), "ok");
            clients[other].ask("close", "ok");
            // Until the server has made the next segment.
            drop(t.client());
        }
        clients.into_iter().for_each(Peer::stop);
        server.stop();
    });
}

#[test]
fn clients_that_attach_and_close_without_a_request_do_not_hold_the_next_one_up() {
    scene(|t| {
        let server = t.server("");
        for n in 0..200 {
            let config = zerobuffer::ClientConfig::new();
            let config = if n % 3 == 0 { config.metadata("x") } else { config };
            let client = Client::connect_with(t.name(), SOON, config).unwrap();
            if n % 5 == 0 {
                drop(client.acquire_request_buffer(100).unwrap());
            }
        }
        let mut client = t.client();
        work::check(client.call(&work::bytes(99, 1), LONG).unwrap().data(), 99, 1);
        drop(client);
        server.stop();
    });
}

#[test]
fn two_hundred_clients_are_served_one_after_the_other() {
    scene(|t| {
        let server = t.server("");
        for seed in 0..200 {
            let mut client = Client::connect(t.name(), SOON).unwrap();
            work::check(client.call(&work::bytes(99, seed), LONG).unwrap().data(), 99, seed);
        }
        server.stop();
    });
}

#[test]
fn a_second_server_is_refused_and_the_first_one_goes_on() {
    scene(|t| {
        let server = t.server("");
        let mut client = t.client();
        for seed in 0..20 {
            fails(Server::create(t.name(), BufferConfig::default()), ErrorKind::AlreadyRunning);
            fails(Client::connect(t.name(), Duration::ZERO), ErrorKind::Busy);
            work::check(client.call(&work::bytes(99, seed), LONG).unwrap().data(), 99, seed);
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn a_client_waits_for_a_server_that_is_not_there_yet() {
    scene(|t| {
        let mut client = t.peer("role=client");
        client.expect("ready");
        client.ask("connect ms=0", "err NotRunning");
        client.ask("connect ms=20", "err NotRunning");
        client.say("connect ms=20000");
        client.expect_naps(5);
        let server = t.server("payload=16777216");
        client.expect("ok");
        client.ask("call len=100000 seed=1", "ok");
        client.stop();
        server.stop();
    });
}

#[test]
fn four_clients_that_come_and_go_at_the_same_time_all_get_their_turns() {
    scene(|t| {
        let server = t.server("workers=2");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..50 {
                        let mut client = Client::connect(t.name(), LONG).unwrap();
                        let (len, seed) = (n * 50, thread * 1000 + n as u64);
                        let answer = client.call(&work::bytes(len, seed), LONG).unwrap();
                        work::check(answer.data(), len, seed);
                    }
                });
            }
        });
        server.stop();
    });
}

#[test]
fn clients_come_and_go_while_servers_are_killed_and_stopped() {
    scene(|t| {
        let done = &AtomicBool::new(false);
        let mut rng = Rng(work::seed());
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut served = 0;
                        while !done.load(Ordering::Relaxed) {
                            let mut client = match Client::connect(t.name(), LONG) {
                                Ok(client) => client,
                                Err(error) => panic!("{error:?}"),
                            };
                            match client.call(&work::bytes(500, thread), LONG) {
                                Ok(answer) => {
                                    work::check(answer.data(), 500, thread);
                                    served += 1;
                                }
                                Err(Error::PeerDied { .. } | Error::PeerClosed { .. }) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        served
                    })
                })
                .collect();
            for n in 0..20 * work::factor() {
                let server = t.server(&format!("workers={}", 1 + n % 3));
                std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
                if n % 2 == 0 { t.kill(server) } else { server.stop() }
            }
            done.store(true, Ordering::Relaxed);
            // For those that are waiting for one.
            let server = t.server("");
            let served: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
            assert!(served > 0);
            server.stop();
        });
    });
}
