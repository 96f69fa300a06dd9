//! Requests and responses: scenario 13.

use crate::*;

pub(crate) fn our_server(channel: &str) -> DuplexServer {
    let mut server = DuplexServer::create(channel, BufferConfig::new(4096, 1 << 20)).unwrap();
    server
        .start_immutable(|request: &RequestView, reply: &mut Reply| reply.write(request.data()))
        .unwrap();
    server
}

pub(crate) fn their_client(channel: &str) -> Peer {
    let mut peer = python("client", &[channel]);
    assert_eq!(peer.reply("connect"), "ok");
    peer
}

/// Their client closes: its response buffer's semaphores stay (rule L5).
fn close_client(mut peer: Peer, channel: &Unique) {
    assert_eq!(peer.reply("close"), "ok");
    assert_eq!(channel.remove_response_semaphores(), 2);
}

impl Unique {
    fn remove_response_semaphores(&self) -> usize {
        let traces = self.traces().into_iter();
        let left = traces.filter(|path| path.contains("/sem.") && path.ends_with("_response"));
        left.map(|path| std::fs::remove_file(path).unwrap()).count()
    }
}

fn stop_server(mut peer: Peer, channel: &Unique) {
    assert_eq!(peer.reply("stop"), "ok");
    assert_eq!(channel.remove_python_semaphores(), 2);
}

#[test]
fn s13_1_s13_7_echoes_and_zero_copy_their_client_our_server() {
    let _scan = together();
    let name = Unique::new("s13-1a");
    let mut server = our_server(&name);
    let mut client = their_client(&name);
    until("the connection", || client.reply("connected") == "True");
    for size in [1, 1024, 102_400] {
        assert_eq!(client.reply(&format!("echo {size}")), "good");
    }
    assert_eq!(client.reply("zero_copy in-place"), "4 in-place");
    close_client(client, &name);
    server.stop().unwrap();
}

#[test]
fn s13_1_s13_7_echoes_and_zero_copy_our_client_their_server() {
    let _scan = together();
    let name = Unique::new("s13-1b");
    let server = python("server", &[&name, "echo"]);
    let mut client = connect(&name).unwrap();
    assert!(client.is_server_connected());
    for size in [1, 1024, 102_400] {
        let bytes = pattern(size as u64, size);
        assert!(client.call(&bytes, LONG).unwrap().data() == bytes);
    }
    let mut buffer = client.acquire_request_buffer(8).unwrap();
    buffer.data_mut().copy_from_slice(b"in-place");
    assert_eq!(buffer.commit().unwrap(), 4);
    let response = client.receive_response(LONG).unwrap();
    assert_eq!((response.sequence(), response.data()), (4, &b"in-place"[..]));
    drop(response);
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_2_s13_3_requests_in_flight_keep_their_order_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-2a");
    let server = our_server(&name);
    let mut client = their_client(&name);
    for _ in 0..20 {
        assert_eq!(client.reply("pipeline 20"), "in order");
    }
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-2b");
    let server = python("server", &[&name, "echo"]);
    let client = connect(&name).unwrap();
    for round in 0..20_u64 {
        let sent: Vec<u64> = (0..20)
            .map(|index| client.send_request(&(round * 20 + index).to_le_bytes()).unwrap())
            .collect();
        for (index, sequence) in sent.into_iter().enumerate() {
            let response = client.receive_response(LONG).unwrap();
            assert_eq!(response.sequence(), sequence);
            assert_eq!(response.data(), (round * 20 + index as u64).to_le_bytes());
        }
    }
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_4_a_slow_handler_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-4a");
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server.start_mutable(|_: &mut Draft| std::thread::sleep(Duration::from_millis(100))).unwrap();
    let mut client = their_client(&name);
    let start = Instant::now();
    for sequence in 1..=3 {
        assert_eq!(client.reply("call slow"), format!("{sequence} slow"));
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-4b");
    let server = python("server", &[&name, "slow"]);
    let mut client = connect(&name).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.call(b"slow", LONG).unwrap().data(), b"slow");
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
    drop(client);
    stop_server(server, &name);
}

#[test]
fn s13_5_a_server_that_dies_in_its_handler_our_client_their_server() {
    let _scan = alone();
    let name = Unique::new("s13-5");
    let server = python("server", &[&name, "echo"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"live", LONG).unwrap().data(), b"live");
    let start = Instant::now();
    let error = client.call(b"die", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerDied);
    assert_eq!(error.lost_request().unwrap().sequence, 2);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(!client.is_server_connected());
    drop(server);
    drop(client);
    assert!(zerobuffer::v1::remove_leftovers(&format!("{}_request", &*name)).unwrap());
}

/// 13.5 the other way: our server stops; their client sees it on the next call.
#[test]
fn s13_5_s13_10_our_server_stops_their_client_notices() {
    let _scan = together();
    let name = Unique::new("s13-10");
    let mut server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    server.stop().unwrap();
    assert_eq!(client.reply("connected"), "False");
    assert!(client.reply("send two").starts_with("!ReaderDeadException"));
    assert!(client.reply("receive 100").starts_with("!WriterDeadException"));
    close_client(client, &name);
    // The name is free again.
    let server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call again"), "1 again");
    close_client(client, &name);
    drop(server);
}

#[test]
fn s13_8_xor_both_ways() {
    let _scan = together();
    let name = Unique::new("s13-8a");
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server
        .start_mutable(|draft: &mut Draft| draft.data_mut().iter_mut().for_each(|byte| *byte ^= 1))
        .unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call abc"), "1 `cb");
    close_client(client, &name);
    drop(server);
    let name = Unique::new("s13-8b");
    let server = python("server", &[&name, "xor"]);
    let mut client = connect(&name).unwrap();
    let expected: Vec<u8> = pattern(0, 5000).iter().map(|byte| byte ^ 0x55).collect();
    assert!(client.call(&pattern(0, 5000), LONG).unwrap().data() == expected);
    drop(client);
    stop_server(server, &name);
}

/// 13.9: their client dies; our server goes on, and serves the next one, ours or theirs.
#[test]
fn s13_9_x4_clients_die_and_close_on_our_server() {
    let _scan = alone();
    let name = Unique::new("s13-9");
    let server = our_server(&name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    client.reply("send left-behind");
    client.kill_and_bury();
    // Its response buffer stays, with its lock unlocked; their next client replaces it once our server
    // has let go of it (rule L10), which takes milliseconds.
    until("the notice", || !server.is_client_connected());
    let mut client = their_client(&name);
    assert_eq!(client.reply("call two"), "1 two");
    close_client(client, &name);
    let mut ours = connect(&name).unwrap();
    assert_eq!(ours.call(b"three", LONG).unwrap().data(), b"three");
    drop(ours);
    let mut client = their_client(&name);
    for count in 1..=100 {
        assert_eq!(client.reply("call four"), format!("{count} four"));
    }
    close_client(client, &name);
    assert!(server.is_running());
    assert_eq!(server.statistics().clients, 4);
}

/// Rule X4, a fault of the peer: one client per start of a Python server. The second one's requests
/// arrive, since ours goes on with the sequence, but the server stays with the first one's response
/// buffer, and soon ends. Our client is told that nobody answers.
#[test]
fn x4_a_second_client_on_their_server() {
    let _scan = alone();
    let name = Unique::new("x4");
    let mut server = python("server", &[&name, "echo", "1"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"first", LONG).unwrap().data(), b"first");
    drop(client);
    let error = connect_for(&name, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
    // It ends by itself when its read times out without a client.
    until("the end of their server", || server.reply("running") == "False");
    assert_eq!(server.reply("stop"), "ok");
    assert_eq!(name.remove_python_semaphores(), 2);
    assert!(name.traces().is_empty());
}

/// Rule X1, a fault of the peer: a failing handler sends nothing, and all later responses shift.
/// Pipelined, nobody can tell; one by one, our client delivers nothing wrong and shows it.
#[test]
fn x1_a_failing_handler_of_their_server() {
    let _scan = together();
    let name = Unique::new("x1a");
    let server = python("server", &[&name, "fail-second"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"one", LONG).unwrap().data(), b"one");
    let error = client.call(b"two", Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(client.is_desynchronised());
    // The response to the third is swallowed as the second one's: a timeout, never a wrong answer.
    let error = client.call(b"three", Duration::from_millis(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(client.is_desynchronised());
    drop(client);
    stop_server(server, &name);
}

/// Rule X1: a handler of theirs that responds twice ends the pairing, and our client says so.
#[test]
fn x1_two_responses_of_their_server() {
    let _scan = together();
    let name = Unique::new("x1b");
    let server = python("server", &[&name, "twice"]);
    let mut client = connect(&name).unwrap();
    assert_eq!(client.call(b"one", LONG).unwrap().data(), b"one");
    until("the second response", || tokens(&format!("{}_response", &*name), 'w') > 0);
    let error = client.send_request(b"two").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Desynchronised);
    drop(client);
    stop_server(server, &name);
}

/// Rule X1 for our server with their client: a failing handler sends what was configured, and the
/// pairs stay; without that the channel closes, and their client sees it.
#[test]
fn x1_a_failing_handler_of_our_server() {
    let _scan = together();
    let name = Unique::new("x1c");
    let handler = |request: &RequestView<'_>, reply: &mut Reply<'_>| match request.data() {
        b"fail" => Err("it said so".to_owned()),
        data => reply.write(data).map_err(|error| error.to_string()),
    };
    let config = ServerConfig::new(BufferConfig::default())
        .failure_response(|message| format!("ERROR {message}").into_bytes());
    let mut server = DuplexServer::create(&name, config).unwrap();
    server.start_immutable(handler).unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    assert_eq!(client.reply("call fail"), "2 ERROR it said so");
    assert_eq!(client.reply("call three"), "3 three");
    close_client(client, &name);
    drop(server);
    let mut server = DuplexServer::create(&name, BufferConfig::default()).unwrap();
    server.start_immutable(handler).unwrap();
    let mut client = their_client(&name);
    assert_eq!(client.reply("call one"), "1 one");
    assert!(client.reply("call fail").starts_with("!WriterDeadException"));
    assert!(client.reply("call three").starts_with("!ReaderDeadException"));
    close_client(client, &name);
    let mut client = their_client(&name);
    assert_eq!(client.reply("call again"), "1 again");
    close_client(client, &name);
    drop(server);
}
