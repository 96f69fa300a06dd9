//! A thousand calls at once on one thread, with tokio.
//!
//! The client's calls are futures: none of them blocks the runtime's thread, and none needs a thread of its
//! own. What finds no room in the ring waits its turn within its timeout, and what a server's end left
//! untouched is sent to the next server.
//!
//! ```sh
//! cargo run -p zerobuffer --example tokio_calls
//! ```

use std::error::Error;
use std::time::Duration;
use zerobuffer::{BufferConfig, Client, ClientConfig, Frame, Server};

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Usually in another process.
    let name = format!("tokio-calls-{}", std::process::id());
    let mut server = Server::create(&name, BufferConfig::new(0, 1 << 16))?;
    server.start(|frame: &mut Frame<'_>| frame.data_mut().make_ascii_uppercase())?;

    // Connecting may wait for the server, so it is done where blocking is allowed.
    let config = ClientConfig::new().resend_not_started(true);
    let connect = move || Client::connect_with(&name, TIMEOUT, config);
    let client = tokio::task::spawn_blocking(connect).await??.into_shared();

    let calls = (0..1000).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            let request = format!("request {n}");
            let response = client.call_async(request.as_bytes(), TIMEOUT).await?;
            assert_eq!(response.data(), request.to_ascii_uppercase().as_bytes());
            Ok::<usize, zerobuffer::Error>(response.len())
        })
    });
    let mut bytes = 0;
    for call in calls.collect::<Vec<_>>() {
        bytes += call.await??;
    }
    println!("1000 responses, {bytes} bytes");
    Ok(())
}
