//! Whom a server refuses, and why.

use crate::scene::{LONG, NAME, Scene, eventually};
use std::os::fd::AsRawFd;
use std::time::Duration;
use zerobuffer::{
    ChannelKind, Client, Error, ErrorKind, Frame, Medium, Pool, Service, ServiceConfig,
};

fn refused(scene: &Scene, ring: usize) -> zerobuffer::Error {
    let config = scene.client_config().ring(ring);
    Client::connect_with(NAME, Duration::ZERO, config).unwrap_err()
}

#[test]
fn each_limit_is_refused_with_its_reason() {
    let scene = Scene::new();
    let config = scene.service_config().max_clients(2).max_ring(2 << 20);
    let mut service = Service::create(NAME, config).unwrap();
    let error = refused(&scene, 3 << 20);
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("2097152"), "{error}");
    let first = scene.client();
    let _second = scene.client();
    let error = refused(&scene, 0);
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("2 clients"), "{error}");
    drop(first);
    // Its place is free once the server knows, and a client that waits gets it.
    let _third = scene.client();
    service.stop().unwrap();
    let error = refused(&scene, 0);
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
}

#[test]
fn one_users_clients_and_a_clients_metadata_are_bounded_as_well() {
    let scene = Scene::new();
    let config = scene.service_config().max_clients_per_user(1);
    let _service = Service::create(NAME, config).unwrap();
    // A thread that serves copies them.
    let config = scene.client_config().metadata(vec![1; 2 << 20]);
    let error = Client::connect_with(NAME, Duration::ZERO, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("metadata may have 1048576 bytes"), "{error}");
    let _first = scene.client();
    let error = refused(&scene, 0);
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("1 clients that one user may have"), "{error}");
}

#[test]
fn who_finds_no_server_is_told_where_it_was_looked_for_and_what_names_the_directory() {
    let scene = Scene::new();
    let place = format!("{}/{NAME}", scene.directory);
    let words = ["start one", "`directory`", "ZEROBUFFER_DIR", place.as_str()];
    let told = |error: zerobuffer::Error, more: &[&str]| {
        assert_eq!(error.kind(), ErrorKind::NotRunning);
        let text = error.to_string();
        words
            .iter()
            .chain(more)
            .for_each(|word| assert!(text.contains(word), "no {word:?} in: {text}"));
    };
    let connect = |kind| {
        let config = scene.client_config().channel(kind);
        Client::connect_with(NAME, Duration::ZERO, config).unwrap_err()
    };
    told(connect(ChannelKind::Service), &["no server for service \"images\""]);
    told(connect(ChannelKind::Any), &["service or channel", "there is no such channel"]);
    told(connect(ChannelKind::InPlace), &["service or channel", "there is no such channel"]);
    told(scene.servers().status(Duration::ZERO).unwrap_err(), &[]);
    let pool = Pool::connect_with(NAME, 2, Duration::ZERO, scene.client_config());
    told(pool.unwrap_err(), &[]);
}

#[test]
fn a_service_s_errors_name_what_can_be_set_for_it() {
    let scene = Scene::new();
    let mut service = Service::create(NAME, scene.service_config()).unwrap();
    let config = scene.client_config().ring(4096).send_timeout(Duration::ZERO);
    let client = Client::connect_with(NAME, LONG, config).unwrap();
    let error = client.send_request(&[0; 5000]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { asked: 5000, .. }));
    assert!(error.to_string().contains("larger `ring`"), "{error}");
    let sent = [0, 1, 2, 3].map(|_| client.send_request(&[0; 900]).unwrap());
    let full = |held| {
        let error = client.send_request(&[0; 900]).unwrap_err();
        let Error::Full { in_flight: 4, held: found, medium: Medium::Service, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(found, held, "{error}");
        assert!(error.to_string().contains("(`ring` of the client's configuration)"), "{error}");
    };
    full(0);
    service.start(|_: &mut Frame<'_>| ()).unwrap();
    let held = sent.map(|sequence| client.receive_response_for(sequence, LONG).unwrap());
    full(4);
    let [first, ..] = held;
    drop(first);
    client.send_request(&[0; 900]).unwrap();
}

/// It refuses with the reason, keeps serving those that it has, and takes others once there are descriptors again.
#[test]
fn a_server_without_descriptors_says_so_and_serves_on() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server descriptors=40");
    let mut clients = Vec::new();
    let error = loop {
        match Client::connect_with(NAME, Duration::ZERO, scene.client_config()) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("descriptors"), "{error}");
    assert!(clients.len() > 10, "{}", clients.len());
    for client in &mut clients {
        assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    }
    drop(clients);
    let mut client = scene.client();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    drop(client);
    server.ask("stop", "stopped");
}

#[test]
fn the_bytes_of_all_segments_are_bounded_and_come_back() {
    let scene = Scene::new();
    let config = scene.service_config().max_bytes(3 << 20);
    let service = Service::create(NAME, config).unwrap();
    let clients = [(); 2].map(|()| scene.client());
    let error = refused(&scene, 0);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("3145728"), "{error}");
    drop(clients);
    let _again = [(); 2].map(|()| scene.client());
    eventually("two are there", || service.clients() == 2);
}

/// Also while nobody else asks, and the service has no handler.
#[test]
fn a_client_that_has_left_leaves_no_memory_with_a_service_that_waits_for_others() {
    let scene = Scene::new();
    let mut service = Service::create("pulled", scene.service_config()).unwrap();
    let client = Client::connect_with("pulled", LONG, scene.client_config()).unwrap();
    client.send_request(b"one").unwrap();
    service.receive(LONG).unwrap().respond();
    drop(client);
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
    eventually("its segment is unmapped", || {
        let error = service.receive(Duration::from_millis(1)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        !maps().contains("/memfd:zerobuffer-pulled")
    });
}

#[test]
fn impossible_configurations_are_refused() {
    let config = ServiceConfig::new;
    // A socket that does not listen, and a file.
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::open("/proc/self/stat").unwrap();
    for (config, kind) in [
        (config().workers(0), ErrorKind::BadConfig),
        (config().handlers_per_client(0), ErrorKind::BadConfig),
        (config().ring(0), ErrorKind::BadConfig),
        (config().ring(2 << 20).max_ring(1 << 20), ErrorKind::BadConfig),
        (config().max_ring(2 << 30), ErrorKind::BadConfig),
        (config().max_clients(0), ErrorKind::BadConfig),
        (config().metadata_size(64).metadata([0; 57]), ErrorKind::TooLarge),
        (config().listener(1 << 20), ErrorKind::System),
        (config().listener(socket.as_raw_fd()), ErrorKind::BadConfig),
        (config().listener(file.as_raw_fd()), ErrorKind::BadConfig),
    ] {
        assert_eq!(Service::create(NAME, config).unwrap_err().kind(), kind);
    }
}

#[test]
fn a_given_listener_is_served_and_left_alone() {
    let scene = Scene::new();
    let (listener, path) = crate::raw::listener(&scene);
    for _ in 0..2 {
        let config = scene.service_config().listener(listener.as_raw_fd());
        let mut service = Service::create(NAME, config).unwrap();
        service.start(crate::peer::handler).unwrap();
        let mut client = scene.client();
        assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
        service.stop().unwrap();
        assert!(std::path::Path::new(&path).exists());
    }
    std::fs::remove_file(path).unwrap();
}

/// As root: a user that is not named is refused, one that is named is let in.
#[test]
fn only_users_that_are_named_may_attach() {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return zerobuffer_test_support::not_run("users", "this needs root");
    }
    for is_named in [false, true] {
        let scene = Scene::new();
        let config = match is_named {
            false => scene.service_config(),
            true => scene.service_config().user(65533),
        };
        let _service = Service::create(NAME, config).unwrap();
        crate::raw::let_in(&scene);
        // SAFETY: the child makes system calls alone, and ends.
        let status = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::alarm(20);
                let as_other = libc::setresuid(65533, 65533, 65533) == 0;
                let mut raw = crate::raw::Raw::connect(&scene);
                raw.send(&crate::raw::hello());
                let code = raw.receive().get(12).copied();
                libc::_exit(if as_other { code.map_or(99, i32::from) } else { 98 });
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            libc::WEXITSTATUS(status)
        };
        assert_eq!(status, if is_named { 0 } else { 6 });
    }
}

/// Says true so often, then false.
fn wanted_for(looks: u32) -> impl Fn() -> bool {
    let left = std::cell::Cell::new(looks);
    move || left.replace(left.get().saturating_sub(1)) > 0
}

#[test]
fn a_client_that_is_not_wanted_any_more_waits_for_no_server() {
    let scene = Scene::new();
    let config = || scene.client_config();
    let told = |error: Error| assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let refused = |kind: ChannelKind| {
        let config = config().channel(kind);
        Client::connect_while(NAME, Duration::MAX, config, &wanted_for(3)).unwrap_err()
    };
    // There is none.
    for kind in [ChannelKind::Any, ChannelKind::Service, ChannelKind::TwoBuffers] {
        told(refused(kind));
    }
    told(Pool::connect_while(NAME, 2, Duration::MAX, config(), &wanted_for(3)).unwrap_err());
    // There is one that does not reply.
    let server = scene.peer("role=server");
    let client = scene.client().into_shared();
    server.freeze();
    told(refused(ChannelKind::Service));
    told(Pool::connect_while(NAME, 2, Duration::MAX, config(), &wanted_for(3)).unwrap_err());
    server.kill();
    told(client.reconnect_while(Duration::MAX, &wanted_for(3)).unwrap_err());
    // The client is as before.
    let server = scene.peer("role=server");
    client.reconnect_while(LONG, &|| true).unwrap();
    assert_eq!(client.call(&1_u64.to_le_bytes(), LONG).unwrap().data(), 2_u64.to_le_bytes());
    server.finish();
}

#[test]
fn servers_that_hang_cost_a_client_no_more_than_one_of_them_beyond_its_time() {
    let scene = Scene::new();
    let servers: Vec<_> = (0..6).map(|_| scene.peer("role=server")).collect();
    servers.iter().for_each(|server| server.freeze());
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        true
    };
    let config = scene.client_config().channel(ChannelKind::Service);
    let timeout = Duration::from_millis(100);
    let error = Client::connect_while(NAME, timeout, config, &count).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    // Before each of the rounds and of the servers that are asked, and once in 50 ms while one is waited for.
    assert!(asked.get() < 10, "{}", asked.get());
    for server in servers {
        server.go_on();
        server.finish();
    }
}

/// A server that looks now and then, without any time, after one client has called often in a row.
#[test]
fn a_server_without_time_finds_what_another_client_has_sent() {
    let scene = Scene::new();
    let config = scene.service_config().wait(zerobuffer::WaitStrategy::Park);
    let mut service = Service::create(NAME, config).unwrap();
    let often = scene.client();
    // Whatever the number is of requests between two looks at what the others do.
    for calls in 20..40 {
        let once = scene.client();
        for _ in 0..calls {
            let sequence = often.send_request(b"x").unwrap();
            service.receive(LONG).unwrap().respond();
            drop(often.receive_response_for(sequence, LONG).unwrap());
        }
        once.send_request(b"y").unwrap();
        let request = service.receive(Duration::ZERO).expect("it was sent before");
        assert_eq!(request.data(), b"y");
    }
}

#[test]
fn all_that_wait_at_a_server_that_stops_are_told_so() {
    let scene = Scene::new();
    let mut server = scene.peer("role=server");
    // Before it stops it lets nobody in any more.
    server.freeze();
    let waiting: Vec<crate::raw::Raw> = (0..150)
        .map(|_| {
            let raw = crate::raw::Raw::connect(&scene);
            assert!(raw.send(&crate::raw::hello()));
            raw
        })
        .collect();
    server.say("stop");
    server.go_on();
    let told = waiting.into_iter().map(|mut raw| raw.receive());
    // Some may have been let in before it stopped, the others are refused with reason 5.
    let told: Vec<_> = told.map(|reply| reply.get(12).copied()).collect();
    assert!(told.iter().all(|code| matches!(code, Some(0 | 1 | 5))), "{told:?}");
    server.expect("stopped");
    server.finish();
}
