//! A broker with an alarm: it tells whoever publishes, and hears nothing more of that connection.
//!
//! The alarm is played, in front of the broker that all tests share.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    broker::{NO_FILE, NO_WORKER, alone},
    doctor,
};
use crate::harness::servers::{authority, through};

/// `Basic.Publish`: class and method.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
/// `Connection.Blocked`, on channel 0, as RabbitMQ writes it; the reason is `low on memory`.
const BLOCKED: &[u8] = b"\x01\0\0\0\0\0\x12\0\x0a\0\x3c\x0dlow on memory\xce";

/// Carries connections to a broker until one publishes.
async fn with_alarm(broker: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let broker = TcpStream::connect(&broker).await.unwrap();
            let (client, to_client) = client.into_split();
            let (broker, to_broker) = broker.into_split();
            tokio::spawn(until_it_publishes([client, broker], [to_client, to_broker]));
        }
    });
    address
}

async fn until_it_publishes(from: [OwnedReadHalf; 2], to: [OwnedWriteHalf; 2]) {
    let [mut client, mut broker] = from;
    let [mut to_client, mut to_broker] = to;
    tokio::select! {
        published = carry(&mut client, &mut to_broker) => if published.is_err() { return },
        _ = io::copy(&mut broker, &mut to_client) => return,
    }
    to_client.write_all(BLOCKED).await.unwrap();
    // What the client says from now on is taken and not read; the broker goes on answering what it
    // has heard before.
    let mut nowhere = io::sink();
    let _ = tokio::join!(
        io::copy(&mut client, &mut nowhere),
        io::copy(&mut broker, &mut to_client)
    );
}

/// Carries frames to the broker up to the first publish, which is not carried.
async fn carry(client: &mut OwnedReadHalf, broker: &mut OwnedWriteHalf) -> io::Result<()> {
    let mut greeting = [0; 8];
    client.read_exact(&mut greeting).await?;
    broker.write_all(&greeting).await?;
    loop {
        // Type, channel, length; the payload; the end.
        let mut head = [0; 7];
        client.read_exact(&mut head).await?;
        let length = u32::from_be_bytes(head[3..].try_into().unwrap());
        let mut rest = vec![0; length as usize + 1];
        client.read_exact(&mut rest).await?;
        if rest.starts_with(&PUBLISH) {
            return Ok(());
        }
        broker.write_all(&head).await?;
        broker.write_all(&rest).await?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_told_soon_and_beside_it_all_that_can_be_told() {
    let (queue, mut env) = alone().await;
    let without_alarm = doctor(&env, &[]).await.took;
    let node = queue.server.nodes.first();
    let address = with_alarm(authority(node)).await;
    env.insert("AMQP_URL", through(node, address).expose().to_string());
    let diagnosis = doctor(&env, &[]).await;
    diagnosis.is(&[
        "problem rabbitmq/permissions",
        "problem rabbitmq/confirm",
        NO_WORKER,
        NO_FILE,
    ]);
    diagnosis.says("rabbitmq/permissions", &["alarm"]);
    diagnosis.says("rabbitmq/confirm", &["memory or disk alarm", "alarms"]);
    // Not each of five questions has waited 5 s for an answer that does not come.
    assert!(
        diagnosis.took < without_alarm + Duration::from_secs(10),
        "{:?}",
        diagnosis.took
    );
    queue.remove().await;
}
