use super::*;
use crate::v1::{Draft, DuplexServer};
use crate::{BufferConfig, Client};

const LONG: Duration = Duration::from_secs(20);

/// A call that was not started finds the connection that another thread has made meanwhile.
#[test]
fn a_connection_over_two_buffers_that_another_thread_has_replaced_is_no_closed_client() {
    let name = format!("replaced-{}", std::process::id());
    let serve = || {
        let mut server = DuplexServer::create(&name, BufferConfig::new(0, 4096)).unwrap();
        server.start_mutable(|_: &mut Draft<'_>| {}).unwrap();
        server
    };
    let server = serve();
    let client = Client::connect(&name, LONG).unwrap().into_shared();
    let failed = client.connection().unwrap();
    let deadline = Deadline::after(LONG);
    drop(server);
    let _server = serve();
    client.reconnect(LONG).unwrap();
    client.replace_failed(&failed, &deadline, &|| false).unwrap();
    client.close();
    let error = client.replace_failed(&client.connection().unwrap(), &deadline, &|| false);
    assert_eq!(error.unwrap_err().kind(), crate::ErrorKind::Closed);
}

/// Its own thread closes it while another one has left the connection and looks for the next server.
#[test]
fn a_client_that_was_closed_after_its_connection_was_left_stays_closed() {
    let name = format!("left-closed-{}", std::process::id());
    let _server = crate::Server::create(&name, BufferConfig::new(0, 4096)).unwrap();
    let client = Client::connect(&name, LONG).unwrap().into_shared();
    let left = client.connection().unwrap();
    left.channel.leave();
    client.close();
    let error = client.replace_failed(&left, &Deadline::after(LONG), &|| false).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Closed);
}
