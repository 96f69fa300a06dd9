//! What a handler can do to a frame, and what the client sees of it.

use crate::harness::{LONG, Scene, fails, scene};
use crate::peer::{Op, edited, op};
use crate::work;
use std::cell::Cell;
use std::collections::HashSet;
use zerobuffer::{
    BufferConfig, Client, ClientConfig, Error, ErrorKind, Frame, RequestLayout, Server,
    ServerConfig,
};

fn call_with(client: &Client, request: &[u8], layout: RequestLayout) -> Result<Vec<u8>, Error> {
    let mut buffer = client.acquire_request_buffer_with(request.len(), layout)?;
    buffer.data_mut().copy_from_slice(request);
    let sequence = buffer.commit()?;
    client.receive_response_for(sequence, LONG).map(|answer| answer.data().to_vec())
}

fn failure(outcome: Result<Vec<u8>, Error>) -> (u16, String) {
    match outcome {
        Err(Error::HandlerFailed { status, message, .. }) => (status, message),
        outcome => panic!("{outcome:?}"),
    }
}

fn still_serves(t: &Scene, client: &mut Client) {
    let request = op(Op::Edit, 77, 500);
    assert_eq!(client.call(&request, LONG).unwrap().data(), edited(&request));
    t.expect_few_tokens();
}

#[test]
fn an_error_of_the_handler_reaches_the_client_with_its_message() {
    scene(|t| {
        let server = t.server("handler=ops");
        let mut client = t.client();
        let mut request = vec![Op::Fail as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        request.extend(b"no such picture");
        let sequence = client.send_request(&request).unwrap();
        match client.receive_response(LONG).unwrap_err() {
            Error::HandlerFailed { sequence: about, status: 1, message } => {
                assert_eq!((about, message.as_str()), (sequence, "no such picture"));
            }
            error => panic!("{error:?}"),
        }
        // Cut to the capacity of 32 bytes, between characters, and marked as cut.
        let mut request = vec![Op::Fail as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        request.extend("ä".repeat(11).as_bytes());
        let (_, message) = failure(call_with(&client, &request, RequestLayout::new()));
        assert_eq!(message, "ä".repeat(11));
        let mut request = vec![Op::Fail as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        request.extend([0xff; 23]);
        let (_, message) = failure(call_with(&client, &request, RequestLayout::new()));
        assert_eq!(message, "\u{fffd}".repeat(9) + "…", "3 bytes each, 32 at the most");
        still_serves(t, &mut client);
        drop(client);
        server.stop();
    });
}

#[test]
fn a_panic_of_the_handler_reaches_the_client_and_the_server_lives_on() {
    scene(|t| {
        let server = t.server("handler=ops workers=2 quiet=1");
        let mut client = t.client();
        for n in 0..20 {
            let layout = RequestLayout::new();
            let (status, message) = failure(call_with(&client, &op(Op::Panic, n, 100), layout));
            assert_eq!(status, 2);
            assert!(message.starts_with("the handler panics on "), "{message}");
            for odd in [Op::PanicOddly, Op::PanicTwice] {
                let (status, _) = failure(call_with(&client, &op(odd, n, 100), layout));
                assert_eq!(status, 2);
            }
        }
        assert_eq!(client.in_flight(), 0);
        still_serves(t, &mut client);
        drop(client);
        server.stop();
    });
}

#[test]
fn an_answer_may_be_shorter_or_as_long_as_the_capacity() {
    scene(|t| {
        let server = t.server("handler=ops");
        let mut client = t.client();
        // Something in every byte of the ring, for what is added must be zero all the same.
        let all = client.max_request_size();
        drop(client.call(&op(Op::Edit, u64::MAX, all), LONG).unwrap());
        for (len, to) in [(100, 0), (100, 1), (100, 99), (9, 32), (100, 128), (4000, 9)] {
            let request = op(Op::Resize, to as u64, len);
            let mut expected = request.clone();
            expected.resize(to, 0);
            let answer = client.call(&request, LONG).unwrap();
            assert_eq!(answer.data(), edited(&expected), "{len} -> {to}");
            assert_eq!((answer.len(), answer.is_empty()), (to, to == 0));
        }
        let layout = RequestLayout::new().capacity(5000);
        let request = op(Op::Resize, 5000, 100);
        let mut expected = request.clone();
        expected.resize(5000, 0);
        assert_eq!(call_with(&client, &request, layout).unwrap(), edited(&expected));
        let (status, message) =
            failure(call_with(&client, &op(Op::Resize, 129, 100), RequestLayout::new()));
        assert_eq!((status, message.as_str()), (1, "TooLarge"));
        still_serves(t, &mut client);
        drop(client);
        server.stop();
    });
}

#[test]
fn data_lies_where_the_alignment_asks_wherever_the_ring_stands() {
    scene(|t| {
        let server = t.server("handler=ops payload=65536");
        let mut client = t.client();
        for turn in 0..200_u64 {
            let alignment = 1_usize << (turn % 13);
            let layout = RequestLayout::new().capacity(300).alignment(alignment);
            let (_, facts) = failure(call_with(&client, &op(Op::Facts, 0, 100), layout));
            let words = crate::peer::Words::new(&facts);
            assert_eq!(words.get::<usize>("len"), 100);
            assert!(words.get::<usize>("capacity") >= 300, "{facts}");
            assert_eq!(words.get::<usize>("page") % alignment, 0, "{facts}");
            drop(client.call(&op(Op::Edit, turn, 9 + turn as usize), LONG).unwrap());
        }
        for alignment in [0, 3, 8192, usize::MAX] {
            let layout = RequestLayout::new().alignment(alignment);
            fails(client.acquire_request_buffer_with(1, layout), ErrorKind::BadConfig);
        }
        drop(client);
        server.stop();
    });
}

#[test]
fn each_side_reads_the_metadata_of_the_other() {
    scene(|t| {
        let server = t.server("handler=ops metadata=rgb24 block=64");
        let with = |metadata: &[u8]| ClientConfig::new().metadata(metadata);
        // 64 bytes hold a length of 8 and 56 bytes.
        for metadata in [&b""[..], b"x", b"1920x1080", &[b'm'; 56]] {
            let client = t.client_with(with(metadata));
            assert_eq!(client.server_metadata(), b"rgb24");
            let layout = RequestLayout::new().capacity(500);
            let (_, facts) = failure(call_with(&client, &op(Op::Facts, 0, 20), layout));
            assert!(facts.ends_with(&format!(" metadata={}", String::from_utf8_lossy(metadata))));
        }
        let outcome = Client::connect_with(t.name(), LONG, with(&[0; 57]));
        let error = fails(outcome, ErrorKind::TooLarge);
        assert!(
            matches!(error, Error::TooLarge { what: "metadata", asked: 57, max: 56 }),
            "{error:?}"
        );
        server.stop();

        let server = t.server("block=0");
        let mut client = t.client();
        assert_eq!(client.server_metadata(), b"");
        work::check(client.call(&work::bytes(70, 1), LONG).unwrap().data(), 70, 1);
        drop(client);
        fails(Client::connect_with(t.name(), LONG, with(b"x")), ErrorKind::TooLarge);
        server.stop();
    });
}

#[test]
fn a_handler_with_state_runs_on_one_worker_and_is_refused_by_several_without_harm() {
    scene(|t| {
        let config = || ServerConfig::new(BufferConfig::new(0, 4096));
        // A cell cannot be shared between threads, and need not be.
        let count = |cell: Cell<u64>| {
            move |frame: &mut Frame<'_>| {
                cell.set(cell.get() + 1);
                frame.data_mut().copy_from_slice(&cell.get().to_le_bytes());
            }
        };
        let mut server = Server::create(t.name(), config()).unwrap();
        server.start_mut(count(Cell::new(0))).unwrap();
        let mut client = t.client();
        for calls in 1..=100_u64 {
            assert_eq!(client.call(&[0; 8], LONG).unwrap().data(), calls.to_le_bytes());
        }
        fails(server.start_mut(|_: &mut Frame<'_>| {}), ErrorKind::InvalidState);
        drop((client, server));
        let mut server = Server::create(t.name(), config().workers(2)).unwrap();
        fails(server.start_mut(count(Cell::new(0))), ErrorKind::BadConfig);
        server.start(|frame: &mut Frame<'_>| work::edit(frame.data_mut())).unwrap();
        let mut client = t.client();
        work::check(client.call(&work::bytes(70, 1), LONG).unwrap().data(), 70, 1);
    });
}

#[test]
fn each_worker_has_a_handler_of_its_own_with_its_state() {
    scene(|t| {
        const REQUESTS: u64 = 300;
        let config = ServerConfig::new(BufferConfig::new(0, 1 << 16)).workers(3);
        let mut server = Server::create(t.name(), config).unwrap();
        let make = |worker: usize| {
            let calls = Cell::new(0_u64);
            move |frame: &mut Frame<'_>| {
                calls.set(calls.get() + 1);
                let (first, rest) = frame.data_mut().split_at_mut(8);
                first.copy_from_slice(&(worker as u64).to_le_bytes());
                rest.copy_from_slice(&calls.get().to_le_bytes());
            }
        };
        server.start_each(make).unwrap();
        let client = t.client();
        let sent: Vec<_> = (0..REQUESTS).map(|_| client.send_request(&[0; 16]).unwrap()).collect();
        let answers = sent.into_iter().map(|sequence| {
            let answer = client.receive_response_for(sequence, LONG).unwrap();
            let word =
                |at: usize| u64::from_le_bytes(answer.data()[at..at + 8].try_into().unwrap());
            (word(0), word(8))
        });
        // No worker has counted a call of another one, and none is counted twice.
        let seen: HashSet<(u64, u64)> = answers.collect();
        assert_eq!(seen.len() as u64, REQUESTS);
        let calls = |of: u64| seen.iter().filter(|(worker, _)| *worker == of).count() as u64;
        assert_eq!((0..3).map(calls).sum::<u64>(), REQUESTS);
        assert!(seen.iter().all(|(worker, count)| (1..=calls(*worker)).contains(count)));
    });
}
