use super::*;
use crate::error::ErrorKind;
use crate::v2::layout::slot;
use crate::{BufferConfig, Client, Server, Service, ServiceConfig, SharedClient};

const LONG: Duration = Duration::from_secs(20);

/// A client of a server that takes nothing, and a request that it has sent.
fn sent(name: &str) -> (Server, Attached, Number) {
    let name = ChannelName::new(&format!("{name}-{}", std::process::id())).unwrap();
    let server = Server::create(name.as_str(), BufferConfig::new(0, 4096)).unwrap();
    let (config, soon) = (ClientConfig::new(), Deadline::after(LONG));
    let channel = ClientChannel::attach(&name, &config, &soon, false, &|| false).unwrap();
    let number = channel.send_at_once(b"request", Demand::anywhere(7)).unwrap();
    (server, channel, number)
}

#[test]
fn a_violation_that_comes_during_a_cancel_is_not_taken_for_a_timeout() {
    let (_server, channel, number) = sent("late");
    let soon = Deadline::after(LONG);
    // The wait is over, and only then the server writes what no request can have.
    let end: std::result::Result<Looked, Unready> = Err(Unready::Timeout);
    channel.segment.payload_words().at(slot::STATE).store(u64::MAX, Ordering::Release);
    let error = channel.settle(number, &soon, end).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
    assert_eq!(channel.check().unwrap_err().kind(), ErrorKind::ProtocolViolation);
}

/// The server has ended, a wait has noticed it, and then this side is closed: every call ends with that.
#[test]
fn a_close_counts_for_more_than_the_end_of_the_server_before_it() {
    let (_server, channel, number) = sent("closed-after");
    let soon = Deadline::after(LONG);
    channel.close();
    let error = channel.settle(number, &soon, Err(Unready::Gone(Peer::Closed))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = channel.settle_next(&soon, Err(Unready::Gone(Peer::Closed))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// Cancelled, or not found any more: it was sent, and to a server that lives.
#[test]
fn a_request_of_a_connection_that_was_left_is_in_doubt() {
    for looked in [Ok(Ok(Look::Unknown)), Err(Unready::Gone(Peer::Closed))] {
        let (_server, channel, number) = sent("left");
        let soon = Deadline::after(LONG);
        channel.leave();
        let error = channel.settle(number, &soon, looked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerClosed);
        assert_eq!(error.lost_request().map(|lost| lost.state), Some(RequestState::InDoubt));
    }
}

/// A service without a handler, and a client of it.
fn service(name: &str) -> (Service, SharedClient) {
    let directory = format!("/tmp/zb-unit-{name}-{}", std::process::id());
    let config = ServiceConfig::new().ring(1 << 16).directory(&directory);
    let service = Service::create(name, config).unwrap();
    let config = ClientConfig::new().directory(&directory);
    let client = Client::connect_with(name, LONG, config).unwrap().into_shared();
    std::fs::remove_dir_all(&directory).unwrap();
    (service, client)
}

/// There are no slices on a service: a thread that sleeps is woken, or sleeps on.
#[test]
fn a_violation_that_one_thread_finds_ends_the_wait_of_another_one() {
    let (service, client) = service("violated");
    let channel = client.in_place().unwrap().channel;
    let [first, second] = [b"first", b"other"].map(|data| client.send_request(data).unwrap());
    let (done, ended) = std::sync::mpsc::channel();
    let waits = client.clone();
    std::thread::spawn(move || {
        let received = waits.receive_response_for(second, Duration::MAX);
        done.send(received.map(drop).unwrap_err().kind()).unwrap();
    });
    // Until it sleeps.
    std::thread::sleep(Duration::from_millis(50));
    channel.segment.payload_words().at(slot::STATE).store(u64::MAX, Ordering::Release);
    let error = client.receive_response_for(first, LONG).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProtocolViolation);
    assert_eq!(ended.recv_timeout(LONG), Ok(ErrorKind::ProtocolViolation));
    drop(service);
}

/// It is this side that has ended the socket.
#[test]
fn a_connection_to_a_service_that_was_closed_here_is_no_dead_server() {
    let (service, client) = service("closed-here");
    let channel = client.in_place().unwrap().channel;
    client.close();
    assert!(!channel.link.has_server(), "the socket has ended");
    assert_eq!(channel.peer(), Peer::Closed);
    drop(service);
}
